#include "native/stream_requests.h"

#include <fmt/format.h>

#include "codec/murmur2.h"
#include "codec/validate.h"

namespace tailrace::broker::native {

using service::Answer;
using service::refuse;

namespace {

void to_wire(const stream::Head& head, proto::StreamHead& out) {
  out.set_last_version(head.last);
  out.set_first_version(head.first);
  out.set_time_ms(head.time_ms);
}

}  // namespace

Task<Answer<proto::AppendStreamReply>> append_stream(Caller caller, proto::AppendStreamRequest request, std::optional<Slice> batch) {
  cluster::TopicPointer topic = caller.service.catalog()->find(request.topic());
  if (!topic) co_return refuse(Errc::no_such_topic, fmt::format("topic {}", request.topic().substr(0, limits::kTopicNameMax)));
  std::uint64_t most = topic->config.message_bytes_max;
  if (!batch || batch->length > most) {
    co_return refuse(Errc::too_large, fmt::format("a batch for topic {}, which takes {} bytes (message_bytes_max)", topic->name, most), {{"message_bytes_max", fmt::format("{}", most)}});
  }
  service::StreamAppendRequest append{.topic = std::move(*request.mutable_topic()), .stream = std::move(*request.mutable_stream())};
  switch (request.expected_case()) {
    case proto::AppendStreamRequest::kNone: append.expected = {stream::Expected::Kind::none, stream::kNoVersion}; break;
    case proto::AppendStreamRequest::kExactly: append.expected = {stream::Expected::Kind::exactly, request.exactly()}; break;
    case proto::AppendStreamRequest::kExists: append.expected = {stream::Expected::Kind::exists, stream::kNoVersion}; break;
    case proto::AppendStreamRequest::kAny: append.expected = {stream::Expected::Kind::any, stream::kNoVersion}; break;
    case proto::AppendStreamRequest::EXPECTED_NOT_SET: co_return refuse(Errc::invalid_argument, "an append says what it expects");
  }
  auto header = codec::validate_batch(batch->bytes(), {.message_bytes_max = most});
  if (!header) co_return refuse(header.error().code, header.error().detail);
  append.batch = *std::move(batch);
  append.header = *header;
  if (request.call().deadline_ms() > 0) append.deadline = caller.runtime.clock.now() + std::chrono::milliseconds{request.call().deadline_ms()};
  auto appended = co_await caller.service.append_stream(std::move(append));
  if (!appended) co_return std::unexpected(std::move(appended).error());
  proto::AppendStreamReply reply;
  reply.set_first_version(appended->first);
  reply.set_last_version(appended->last);
  reply.set_partition(appended->partition.value());
  reply.set_offset(appended->offset.value());
  reply.set_duplicate(appended->duplicate);
  co_return reply;
}

Task<Answer<ReadStreamAnswer>> read_stream(Caller caller, proto::ReadStreamRequest request) {
  service::StreamReadRequest read{.topic = std::move(*request.mutable_topic()), .stream = std::move(*request.mutable_stream()), .from = request.from(),
                                  .backwards = request.backwards(), .events_max = request.events_max(), .bytes_max = request.bytes_max()};
  auto found = co_await caller.service.read_stream(std::move(read));
  if (!found) co_return std::unexpected(std::move(found).error());
  ReadStreamAnswer answer;
  to_wire(found->head, *answer.control.mutable_head());
  answer.control.set_end(found->end);
  for (service::StreamBatch& one : found->batches) {
    proto::StreamBatch& to = *answer.control.add_batches();
    to.set_first_version(one.first);
    to.set_bytes(static_cast<std::uint32_t>(one.batch.length));
    answer.payload.push_back(std::move(one.batch));
  }
  co_return answer;
}

Task<Answer<proto::ListStreamsReply>> list_streams(Caller caller, proto::ListStreamsRequest request) {
  auto listed = co_await caller.service.list_streams({.topic = std::move(*request.mutable_topic()), .prefix = std::move(*request.mutable_prefix()),
                                                      .after = std::move(*request.mutable_after()), .most = request.limit()});
  if (!listed) co_return std::unexpected(std::move(listed).error());
  proto::ListStreamsReply reply;
  for (stream::Listed& one : *listed) {
    proto::ListedStream& to = *reply.add_streams();
    to.set_stream(std::move(one.stream));
    to_wire(one.head, *to.mutable_head());
  }
  co_return reply;
}

Task<Answer<proto::DescribeStreamReply>> describe_stream(Caller caller, proto::DescribeStreamRequest request) {
  cluster::TopicPointer topic = caller.service.catalog()->find(request.topic());
  auto head = co_await caller.service.describe_stream(request.topic(), request.stream());
  if (!head) co_return std::unexpected(std::move(head).error());
  proto::DescribeStreamReply reply;
  to_wire(*head, *reply.mutable_head());
  if (topic) reply.set_partition(codec::partition_for_key(as_bytes(request.stream()), topic->partitions).value());
  co_return reply;
}

Task<Answer<proto::TruncateStreamReply>> truncate_stream(Caller caller, proto::TruncateStreamRequest request) {
  service::StreamTruncateRequest truncate{.topic = std::move(*request.mutable_topic()), .stream = std::move(*request.mutable_stream())};
  if (request.has_before()) truncate.before = request.before();
  auto head = co_await caller.service.truncate_stream(std::move(truncate));
  if (!head) co_return std::unexpected(std::move(head).error());
  proto::TruncateStreamReply reply;
  to_wire(*head, *reply.mutable_head());
  co_return reply;
}

}  // namespace tailrace::broker::native
