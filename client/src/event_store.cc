#include "tailrace/event_store.h"

#include <algorithm>
#include <cstring>

#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "src/engine.h"
#include "tailrace/client.h"

namespace tailrace::inline v1 {

using detail::CallPolicy;
using proto::FrameType;

namespace detail {

/// An append's control part with its batch; goes out as one frame.
struct AppendWithBatch {
  proto::AppendStreamRequest control;
  broker::Slice batch;
  proto::Call* mutable_call() { return control.mutable_call(); }
};
broker::Slice encode_frame(FrameType type, std::uint64_t id, const AppendWithBatch& append) {
  broker::Slice head = encode_frame(type, id, append.control, append.batch.length);
  auto whole = broker::Buffer::allocate(head.length + append.batch.length);
  std::memcpy(whole.data(), head.bytes().data(), head.length);
  std::memcpy(whole.data() + head.length, append.batch.bytes().data(), append.batch.length);
  return broker::Slice::whole(std::move(whole));
}

}  // namespace detail

namespace {

constexpr std::string_view kIdHeader = "tailrace-event-id", kTypeHeader = "tailrace-event-type";

detail::Engine* engine_of(const std::shared_ptr<detail::ClientCore>& core) { return core ? core->engine().get() : nullptr; }

template <class T>
Task<T> refused(detail::Engine& engine, Error error) {
  return detail::Single<T>::done(engine.callbacks(), std::unexpected(std::move(error)));
}

StreamInfo info_of(const std::string& stream, const proto::StreamHead& head, std::int32_t partition = -1) {
  return {.stream = stream, .last_version = head.last_version(), .first_version = head.first_version(), .time = Instant{Milliseconds{head.time_ms()}},
          .partition = partition};
}

broker::Bytes bytes_of(std::string_view text) { return broker::as_bytes(text); }

Result<broker::Slice> batch_of(std::string_view stream, const std::vector<NewEvent>& events) {
  broker::codec::BatchBuilder builder{{.bytes_max = broker::limits::kMessageBytesCeiling}};
  auto now = std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now());
  for (const NewEvent& event : events) {
    std::vector<broker::codec::HeaderView> headers{{kIdHeader, bytes_of(event.id)}, {kTypeHeader, bytes_of(event.type)}};
    for (const Header& header : event.headers) {
      if (header.key == kIdHeader || header.key == kTypeHeader) {
        return std::unexpected(make_error(Errc::invalid_argument, "header " + header.key + ": it carries the event's id or type, which have fields of their own"));
      }
      std::optional<broker::Bytes> value;
      if (header.value) value = bytes_of(*header.value);
      headers.push_back({header.key, value});
    }
    auto added = builder.add({.timestamp = event.time.value_or(now).time_since_epoch().count(), .key = bytes_of(stream), .value = bytes_of(event.data), .headers = headers});
    if (!added) return std::unexpected(detail::to_error(added.error()));
  }
  auto batch = builder.finish();
  if (!batch) return std::unexpected(detail::to_error(batch.error()));
  return *std::move(batch);
}

Event event_of(Version version, const broker::codec::RecordView& record) {
  Event event{.version = version, .offset = record.offset.value(), .time = Instant{Milliseconds{record.timestamp}}};
  if (record.value) event.data = broker::as_text(*record.value);
  for (const auto& header : record.headers) {
    std::optional<std::string> value;
    if (header.value) value = std::string{broker::as_text(*header.value)};
    if (header.key == kIdHeader) event.id = value.value_or("");
    else if (header.key == kTypeHeader) event.type = value.value_or("");
    else event.headers.push_back({std::string{header.key}, std::move(value)});
  }
  return event;
}

/// What was asked for, out of whole batches.
Result<StreamEvents> events_of(const ReadStream& asked, const proto::ReadStreamReply& reply, broker::Bytes payload) {
  StreamEvents out{.last_version = reply.head().last_version(), .first_version = reply.head().first_version(), .end = reply.end()};
  Version from = asked.backwards ? (asked.from < 0 ? out.last_version : std::min(asked.from, out.last_version)) : std::max(asked.from, out.first_version);
  out.next = from;
  for (const auto& one : reply.batches()) {
    if (one.bytes() > payload.size()) return std::unexpected(make_error(Errc::protocol, "a read is shorter than it says"));
    auto reader = broker::codec::BatchReader::open(payload.first(one.bytes()));
    payload = payload.subspan(one.bytes());
    if (!reader) return std::unexpected(detail::to_error(reader.error()));
    std::vector<Event> events;
    broker::codec::RecordView record;
    while (reader->next(record)) {
      Version version = one.first_version() + static_cast<Version>(record.offset_delta);
      bool wanted = version >= out.first_version && version <= out.last_version && (asked.backwards ? version <= from : version >= from);
      if (wanted) events.push_back(event_of(version, record));
    }
    if (reader->error()) return std::unexpected(detail::to_error(*reader->error()));
    if (asked.backwards) std::ranges::reverse(events);
    for (Event& event : events) {
      if (out.events.size() == asked.max) {
        out.end = false;
        return out;
      }
      out.next = event.version + (asked.backwards ? -1 : 1);
      out.events.push_back(std::move(event));
    }
  }
  return out;
}

}  // namespace

EventStore Client::events(std::string_view topic) { return EventStore{core_, std::string{topic}}; }

Task<Appended> EventStore::append(std::string_view stream, Expected expected, const std::vector<NewEvent>& events) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  auto batch = batch_of(stream, events);
  if (!batch) return refused<Appended>(*engine, std::move(batch).error());
  detail::AppendWithBatch request{.control = {}, .batch = *std::move(batch)};
  request.control.set_topic(topic_);
  request.control.set_stream(std::string{stream});
  switch (expected.kind()) {
    case Expected::Kind::none: request.control.set_none(true); break;
    case Expected::Kind::exactly: request.control.set_exactly(expected.version()); break;
    case Expected::Kind::exists: request.control.set_exists(true); break;
    case Expected::Kind::any: request.control.set_any(true); break;
  }
  bool known_again = expected.kind() == Expected::Kind::none || expected.kind() == Expected::Kind::exactly;
  return engine->call<Appended, detail::AppendWithBatch, proto::AppendStreamReply>(
      FrameType::append_stream, std::move(request), FrameType::append_stream_reply, known_again ? CallPolicy::repeat : CallPolicy::once,
      [](const proto::AppendStreamReply& reply) -> Result<Appended> {
        return Appended{.first_version = reply.first_version(), .last_version = reply.last_version(), .partition = reply.partition(),
                        .offset = reply.offset(), .duplicate = reply.duplicate()};
      });
}

Task<StreamEvents> EventStore::read(std::string_view stream, ReadStream options) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::ReadStreamRequest request;
  request.set_topic(topic_);
  request.set_stream(std::string{stream});
  request.set_from(options.from);
  request.set_backwards(options.backwards);
  request.set_events_max(options.max);
  return engine->call<StreamEvents, proto::ReadStreamRequest, proto::ReadStreamReply>(
      FrameType::read_stream, std::move(request), FrameType::read_stream_reply, CallPolicy::repeat,
      [options](const proto::ReadStreamReply& reply, broker::Bytes payload) -> Result<StreamEvents> { return events_of(options, reply, payload); });
}

Task<std::vector<StreamInfo>> EventStore::list(std::string_view prefix, std::string_view after, std::uint32_t limit) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::ListStreamsRequest request;
  request.set_topic(topic_);
  request.set_prefix(std::string{prefix});
  request.set_after(std::string{after});
  request.set_limit(limit);
  return engine->call<std::vector<StreamInfo>, proto::ListStreamsRequest, proto::ListStreamsReply>(
      FrameType::list_streams, std::move(request), FrameType::list_streams_reply, CallPolicy::repeat,
      [](const proto::ListStreamsReply& reply) -> Result<std::vector<StreamInfo>> {
        std::vector<StreamInfo> out;
        for (const auto& one : reply.streams()) out.push_back(info_of(one.stream(), one.head()));
        return out;
      });
}

Task<StreamInfo> EventStore::describe(std::string_view stream) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::DescribeStreamRequest request;
  request.set_topic(topic_);
  request.set_stream(std::string{stream});
  return engine->call<StreamInfo, proto::DescribeStreamRequest, proto::DescribeStreamReply>(
      FrameType::describe_stream, std::move(request), FrameType::describe_stream_reply, CallPolicy::repeat,
      [name = std::string{stream}](const proto::DescribeStreamReply& reply) -> Result<StreamInfo> { return info_of(name, reply.head(), reply.partition()); });
}

Task<StreamInfo> EventStore::hide(std::string_view stream, std::optional<Version> before) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::TruncateStreamRequest request;
  request.set_topic(topic_);
  request.set_stream(std::string{stream});
  if (before) request.set_before(*before);
  // Hiding what is hidden changes nothing; hiding "all there are" twice may hide what was appended in between.
  return engine->call<StreamInfo, proto::TruncateStreamRequest, proto::TruncateStreamReply>(
      FrameType::truncate_stream, std::move(request), FrameType::truncate_stream_reply, before ? CallPolicy::repeat : CallPolicy::once,
      [name = std::string{stream}](const proto::TruncateStreamReply& reply) -> Result<StreamInfo> { return info_of(name, reply.head()); });
}

Task<StreamInfo> EventStore::truncate(std::string_view stream, Version before) { return hide(stream, before); }
Task<StreamInfo> EventStore::delete_stream(std::string_view stream) { return hide(stream, std::nullopt); }

}  // namespace tailrace::inline v1
