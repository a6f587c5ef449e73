/// Calls about event streams: checked where they come in, carried to the shard of the stream's partition, answered there.
#include <fmt/format.h>

#include <algorithm>

#include "codec/murmur2.h"
#include "service/shard_core.h"
#include "service/stream_batch.h"
#include "service/stream_partition.h"
#include "stream/names.h"

namespace tailrace::broker::service {
namespace {

Answer<cluster::TopicPointer> stream_topic(ShardCore& core, std::string_view name) {
  auto topic = core.topic_named(name);
  if (topic && !(*topic)->config.streams) return refuse(Errc::not_a_stream_topic, (*topic)->name);
  return topic;
}

Answer<void> check_name(std::string_view stream) {
  if (stream::valid_name(stream)) return {};
  return refuse(Errc::invalid_argument, fmt::format("a stream's name is 1 to {} bytes of UTF-8 without control characters", limits::kStreamNameBytesMax));
}

/// Runs `ask(streams)` where the partition lives.
template <class T, class F>
Task<Answer<T>> on_owner(ShardCore& core, PartitionId id, F ask) {
  ShardCore& there = core.core_of(core.home(id));
  auto work = [&there, id, &ask]() -> Task<Answer<T>> {
    auto found = there.slot_for(id);
    if (!found) co_return std::unexpected(std::move(found).error());
    SlotUse slot{*std::move(found)};
    auto streams = co_await there.streams_of(*slot);
    if (!streams) co_return std::unexpected(std::move(streams).error());
    co_return co_await ask(**streams);
  };
  co_return co_await core.port.call_on(there.index, std::move(work));
}

template <class T, class F>
Task<Answer<T>> of_stream(ShardCore& core, std::string topic_name, std::string stream, F ask) {
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return counted(core, Answer<T>{std::unexpected(std::move(fine).error())});
  if (auto fine = check_name(stream); !fine) co_return counted(core, Answer<T>{std::unexpected(std::move(fine).error())});
  auto topic = stream_topic(core, topic_name);
  if (!topic) co_return counted(core, Answer<T>{std::unexpected(std::move(topic).error())});
  PartitionId id{(*topic)->id, codec::partition_for_key(as_bytes(stream), (*topic)->partitions)};
  co_return counted(core, co_await on_owner<T>(core, id, std::move(ask)));
}

}  // namespace

Task<Answer<void>> ShardCore::open_stream_indexes() {
  for (;;) {
    if (stopping) co_return refuse(Errc::shutting_down);
    if (stream_indexes) co_return Answer<void>{};
    if (!node.options.stream_indexes) co_return refuse(Errc::unsupported, "this broker keeps no event streams");
    if (!stream_indexes_opening) break;
    co_await stream_indexes_changed.wait();
  }
  stream_indexes_opening = true;
  auto opened = co_await node.options.stream_indexes(runtime, index);
  stream_indexes_opening = false;
  if (opened) stream_indexes = *std::move(opened);
  stream_indexes_changed.notify_all();
  if (!opened) co_return std::unexpected(Refusal{std::move(opened).error()});
  co_return Answer<void>{};
}

Task<Answer<std::shared_ptr<StreamPartition>>> ShardCore::streams_of(PartitionSlot& slot) {
  if (!slot.topic->config.streams) co_return refuse(Errc::not_a_stream_topic, slot.topic->name);
  if (auto there = co_await open_stream_indexes(); !there) co_return std::unexpected(std::move(there).error());
  if (auto fine = admit(slot); !fine) co_return std::unexpected(std::move(fine).error());
  if (!slot.streams) slot.streams = std::make_shared<StreamPartition>(*this, slot, stream_indexes->index(slot.id));
  co_return slot.streams;
}

Task<Answer<StreamAppendReply>> ShardService::append_stream(StreamAppendRequest request) {
  using Reply = Answer<StreamAppendReply>;
  ShardCore& core = *core_;
  auto topic = stream_topic(core, request.topic);
  if (!topic) co_return counted(core, Reply{std::unexpected(std::move(topic).error())});
  if (auto fine = check_name(request.stream); !fine) co_return counted(core, Reply{std::unexpected(std::move(fine).error())});
  const stream::Expected& expected = request.expected;
  if (expected.kind == stream::Expected::Kind::exactly && (expected.version < 0 || expected.version > INT64_MAX - limits::kEventsPerAppendMax - 1)) {
    co_return counted(core, Reply{refuse(Errc::invalid_argument, fmt::format("expected version {}", expected.version))});
  }
  if (request.header.is_control() || request.header.is_transactional() || request.header.has_log_append_time()) {
    co_return counted(core, Reply{refuse(Errc::invalid_record, "control and transactional batches, and the append time, are the broker's")});
  }
  if (request.header.producer_id != kNoProducer) {
    co_return counted(core, Reply{refuse(Errc::invalid_record, "an append to a stream carries no producer id: its event ids protect it")});
  }
  if (request.batch.length > (*topic)->config.message_bytes_max) {
    co_return counted(core, Reply{refuse(Errc::too_large, fmt::format("a batch of {} bytes; topic {} takes {} (message_bytes_max)", request.batch.length, request.topic, (*topic)->config.message_bytes_max),
                                         {{"message_bytes_max", fmt::format("{}", (*topic)->config.message_bytes_max)}})});
  }
  auto ids = check_append(request.batch.bytes(), request.stream);
  if (!ids) co_return counted(core, Reply{std::unexpected(Refusal{std::move(ids).error()})});
  std::string name = request.topic, stream = request.stream;
  auto ask = [&request, &ids](StreamPartition& streams) { return streams.append(request, *ids); };
  co_return co_await of_stream<StreamAppendReply>(core, std::move(name), std::move(stream), std::move(ask));
}

Task<Answer<StreamReadReply>> ShardService::read_stream(StreamReadRequest request) {
  if (request.events_max < 1 || request.events_max > limits::kStreamReadEventsMax) {
    co_return counted(*core_, Answer<StreamReadReply>{refuse(Errc::invalid_argument, fmt::format("{} events in one read; it takes 1 to {}", request.events_max, limits::kStreamReadEventsMax))});
  }
  if (request.from < -1 || (request.from < 0 && !request.backwards)) {
    co_return counted(*core_, Answer<StreamReadReply>{refuse(Errc::invalid_argument, fmt::format("version {}", request.from))});
  }
  auto ask = [&request](StreamPartition& streams) { return streams.read(request); };
  co_return co_await of_stream<StreamReadReply>(*core_, request.topic, request.stream, std::move(ask));
}

Task<Answer<stream::Head>> ShardService::describe_stream(std::string topic, std::string stream) {
  auto ask = [&stream](StreamPartition& streams) { return streams.describe(stream); };
  co_return co_await of_stream<stream::Head>(*core_, std::move(topic), stream, std::move(ask));
}

Task<Answer<stream::Head>> ShardService::truncate_stream(StreamTruncateRequest request) {
  if (request.before && *request.before < 0) {
    co_return counted(*core_, Answer<stream::Head>{refuse(Errc::invalid_argument, fmt::format("before {}", *request.before))});
  }
  auto ask = [&request](StreamPartition& streams) { return streams.truncate(request); };
  co_return co_await of_stream<stream::Head>(*core_, request.topic, request.stream, std::move(ask));
}

Task<Answer<std::vector<stream::Listed>>> ShardService::list_streams(StreamListRequest request) {
  using Reply = Answer<std::vector<stream::Listed>>;
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return counted(core, Reply{std::unexpected(std::move(fine).error())});
  auto topic = stream_topic(core, request.topic);
  if (!topic) co_return counted(core, Reply{std::unexpected(std::move(topic).error())});
  if (request.most < 1 || request.most > limits::kStreamListMax) {
    co_return counted(core, Reply{refuse(Errc::invalid_argument, fmt::format("{} names in one list; it takes 1 to {}", request.most, limits::kStreamListMax))});
  }
  if (request.prefix.size() > limits::kStreamNameBytesMax || request.after.size() > limits::kStreamNameBytesMax) {
    co_return counted(core, Reply{refuse(Errc::invalid_argument, fmt::format("a stream's name has at most {} bytes", limits::kStreamNameBytesMax))});
  }
  std::vector<stream::Listed> all;
  for (std::int32_t i = 0; i < (*topic)->partitions; ++i) {
    auto ask = [&request](StreamPartition& streams) { return streams.list(request); };
    auto some = co_await on_owner<std::vector<stream::Listed>>(core, {(*topic)->id, PartitionIndex{i}}, std::move(ask));
    if (!some) co_return counted(core, std::move(some));
    std::ranges::move(*some, std::back_inserter(all));
    std::ranges::sort(all, {}, &stream::Listed::stream);
    if (all.size() > request.most) all.resize(request.most);
  }
  co_return all;
}

}  // namespace tailrace::broker::service
