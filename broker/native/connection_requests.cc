// What the frames of a connection mean: each becomes a call of the service, or a change of a stream.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "base/log.h"
#include "codec/validate.h"
#include "native/answer_bytes.h"
#include "native/connection.h"

namespace tailrace::broker::native {

using service::Answer;
using service::refuse;
using service::Refusal;
using proto::FrameType;

namespace {

constexpr std::size_t kClientTextMax = 256;  // of client id and software that is kept and logged

std::string shortened(std::string text) {
  if (text.size() > kClientTextMax) text.resize(kClientTextMax);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  }
  return text;
}

/// Calls whose answer may come too late. Streams are opened and moved in step with the client, which waits for the answer.
bool may_be_abandoned(Api api) {
  switch (api) {
    case Api::create_topic: case Api::alter_topic: case Api::delete_topic: case Api::delete_records: case Api::describe_topic:
    case Api::list_offsets: case Api::skip_damage: case Api::leave_group: case Api::commit_offsets: case Api::stored_offsets: case Api::list_groups:
    case Api::describe_group: case Api::reset_offsets: case Api::delete_group:
    case Api::append_stream: case Api::read_stream: case Api::list_streams: case Api::describe_stream: case Api::truncate_stream: return true;
    case Api::join_group: case Api::group_heartbeat:  // in step with the member, which waits for the answer
    case Api::hello: case Api::ping: case Api::metadata: case Api::open_producer: case Api::publish: case Api::close_producer:
    case Api::subscribe: case Api::credit: case Api::seek: case Api::unsubscribe: case Api::other: case Api::count_: return false;
  }
  return false;
}
bool changes_something(Api api) {
  return api != Api::describe_topic && api != Api::list_offsets && api != Api::stored_offsets && api != Api::list_groups && api != Api::describe_group &&
         api != Api::read_stream && api != Api::list_streams && api != Api::describe_stream;
}

/// What is larger would not fit a frame beside others; it is refused instead of sent.
constexpr std::size_t kAnswerBytesMax = limits::kFrameBytesMax / 2;

template <class Reply>
const auto& control_of(const Reply& reply) {
  if constexpr (requires { reply.payload; }) return reply.control;
  else return reply;
}

/// An answer of records carries them behind its control part.
template <class Reply>
void send_answer(Wire& wire, FrameType type, std::uint64_t id, const Reply& reply) {
  if constexpr (requires { reply.payload; }) wire.send(type, id, reply.control, reply.payload);
  else wire.send(type, id, reply);
}

template <class T>
Answer<T> failed(Refusal refusal) {
  return std::unexpected{std::move(refusal)};
}

}  // namespace

// ---- dispatch -----------------------------------------------------------------------------------------------------------

void Connection::on_frame(const Frame& frame) {
  switch (state_) {
    case State::greeting:
      if (frame.header.type == FrameType::hello) return on_hello(frame);
      front_.log_garbage(peer_, "the first frame is not a hello");
      return end(Errc::protocol, "the first frame must be a hello");
    case State::serving:
    case State::draining: return on_request(frame);
    case State::leaving:
    case State::ending: return;  // read_loop has stopped
  }
}

void Connection::on_hello(const Frame& frame) {
  Instant began = now();
  proto::Hello hello;
  if (!parse(frame.control, hello)) {
    front_.log_garbage(peer_, "the hello is not a valid message");
    return end(Errc::protocol, "the hello is not a valid message");
  }
  if (hello.major() != proto::kProtocolMajor) {
    Refusal refusal{Errc::unsupported_version, fmt::format("this broker speaks version {}.{}, the client {}.{}", proto::kProtocolMajor,
                                                           proto::kProtocolMinor, hello.major(), hello.minor())};
    counted(Api::hello, began, &refusal);
    return end(refusal.code, refusal.detail);
  }
  client_id_ = shortened(std::move(*hello.mutable_client_id()));
  proto::HelloReply reply;
  reply.set_major(proto::kProtocolMajor);
  reply.set_minor(proto::kProtocolMinor);
  reply.set_cluster_id(front_.options().cluster_id);
  reply.set_node_id(front_.options().node.value());
  reply.set_software(front_.options().software);
  for (const auto& feature : front_.options().features) reply.add_features(feature);
  reply.set_frame_bytes_max(limits::kFrameBytesMax);
  reply.set_streams_max(limits::kStreamsPerConnectionMax);
  reply.set_calls_in_flight_max(limits::kCallsInFlightPerConnectionMax);
  reply.set_idle_timeout_ms(static_cast<std::uint32_t>(idle_timeout_.count()));
  wire_.send(FrameType::hello_reply, frame.header.id, reply);
  reader_.raise_limit(limits::kFrameBytesMax);
  state_ = State::serving;
  log_debug("native.connected", "{} client={} software={}", peer_, client_id_, shortened(hello.software()));
  counted(Api::hello, began, nullptr);
}

void Connection::on_request(const Frame& frame) {
  const std::uint64_t id = frame.header.id;
  switch (frame.header.type) {
    case FrameType::hello: return end(Errc::protocol, "a second hello");
    case FrameType::ping: {
      proto::Ping ping;
      if (!parse(frame.control, ping)) return end(Errc::protocol, "a ping is not a valid message");
      proto::Pong pong;
      pong.set_token(ping.token());
      wire_.send(FrameType::pong, id, pong);
      ++front_.count().apis[static_cast<std::size_t>(Api::ping)].ok;
      return;
    }
    case FrameType::pong:
    case FrameType::error: return;  // a client has nothing to refuse us; both count as a sign of life
    case FrameType::goodbye:
      state_ = State::leaving;
      return;
    case FrameType::publish: return on_publish(frame);
    case FrameType::credit: return on_credit(frame);
    case FrameType::metadata: return start_call(frame, FrameType::metadata_reply, &Connection::metadata);
    case FrameType::create_topic: return start_call(frame, FrameType::create_topic_reply, &Connection::create_topic);
    case FrameType::alter_topic: return start_call(frame, FrameType::alter_topic_reply, &Connection::alter_topic);
    case FrameType::describe_topic: return start_call(frame, FrameType::describe_topic_reply, &Connection::describe_topic);
    case FrameType::delete_topic: return start_call(frame, FrameType::delete_topic_reply, &Connection::delete_topic);
    case FrameType::delete_records: return start_call(frame, FrameType::delete_records_reply, &Connection::delete_records);
    case FrameType::list_offsets: return start_call(frame, FrameType::list_offsets_reply, &Connection::list_offsets);
    case FrameType::skip_damage: return start_call(frame, FrameType::skip_damage_reply, &Connection::skip_damage);
    case FrameType::open_producer: return start_call(frame, FrameType::open_producer_reply, &Connection::open_producer);
    case FrameType::close_producer: return start_call(frame, FrameType::close_producer_reply, &Connection::close_producer);
    case FrameType::subscribe: return start_call(frame, FrameType::subscribe_reply, &Connection::subscribe);
    case FrameType::seek: return start_call(frame, FrameType::seek_reply, &Connection::seek);
    case FrameType::unsubscribe: return start_call(frame, FrameType::unsubscribe_reply, &Connection::unsubscribe);
    case FrameType::join_group: return start_call(frame, FrameType::join_group_reply, join_group);
    case FrameType::group_heartbeat: return start_call(frame, FrameType::group_heartbeat_reply, group_heartbeat);
    case FrameType::leave_group: return start_call(frame, FrameType::leave_group_reply, leave_group);
    case FrameType::commit_offsets: return start_call(frame, FrameType::commit_offsets_reply, commit_offsets);
    case FrameType::stored_offsets: return start_call(frame, FrameType::stored_offsets_reply, stored_offsets);
    case FrameType::list_groups: return start_call(frame, FrameType::list_groups_reply, list_groups);
    case FrameType::describe_group: return start_call(frame, FrameType::describe_group_reply, describe_group);
    case FrameType::reset_offsets: return start_call(frame, FrameType::reset_offsets_reply, reset_offsets);
    case FrameType::delete_group: return start_call(frame, FrameType::delete_group_reply, delete_group);
    case FrameType::append_stream: {
      auto append = [this, &frame](proto::AppendStreamRequest&& request) {
        return append_stream({front_.service(), front_.runtime()}, std::move(request), frame.discarded ? std::nullopt : std::optional{frame.keep()});
      };
      return start<proto::AppendStreamRequest>(frame, FrameType::append_stream_reply, append);
    }
    case FrameType::read_stream: return start_call(frame, FrameType::read_stream_reply, read_stream);
    case FrameType::list_streams: return start_call(frame, FrameType::list_streams_reply, list_streams);
    case FrameType::describe_stream: return start_call(frame, FrameType::describe_stream_reply, describe_stream);
    case FrameType::truncate_stream: return start_call(frame, FrameType::truncate_stream_reply, truncate_stream);
    // The broker's own words, said by a client: answered like any type that is not known here.
    case FrameType::hello_reply: case FrameType::metadata_reply: case FrameType::create_topic_reply: case FrameType::alter_topic_reply:
    case FrameType::describe_topic_reply: case FrameType::delete_topic_reply: case FrameType::delete_records_reply:
    case FrameType::list_offsets_reply: case FrameType::skip_damage_reply: case FrameType::open_producer_reply: case FrameType::publish_reply:
    case FrameType::producer_window: case FrameType::close_producer_reply: case FrameType::subscribe_reply: case FrameType::records:
    case FrameType::seek_reply: case FrameType::unsubscribe_reply:
    case FrameType::join_group_reply: case FrameType::group_heartbeat_reply: case FrameType::leave_group_reply: case FrameType::commit_offsets_reply:
    case FrameType::stored_offsets_reply: case FrameType::list_groups_reply: case FrameType::describe_group_reply: case FrameType::reset_offsets_reply:
    case FrameType::delete_group_reply:
    case FrameType::append_stream_reply: case FrameType::read_stream_reply: case FrameType::list_streams_reply: case FrameType::describe_stream_reply:
    case FrameType::truncate_stream_reply: break;
  }
  auto type = static_cast<std::uint16_t>(frame.header.type);
  if (type >= 0x8000) return;  // optional by definition
  Refusal refusal{Errc::unsupported, fmt::format("frame type {}", type)};
  wire_.send_error(id, refusal);
  counted(Api::other, now(), &refusal);
}

std::optional<std::uint64_t> Connection::judge_large(const proto::FrameHeader& header) const {
  std::uint64_t pool = front_.service().memory().pool(flow::Pool::requests).limit();
  if (header.type == FrameType::publish) {
    auto stream = publish_.find(header.id);
    if (stream == publish_.end()) return std::nullopt;
    if (header.payload_bytes() > stream->second->topic()->config.message_bytes_max) {
      // The limit may have been raised since the stream was opened.
      cluster::TopicPointer topic = front_.service().catalog()->find(stream->second->topic()->id);
      stream->second->refresh(topic);
      if (!topic || header.payload_bytes() > topic->config.message_bytes_max) return std::nullopt;
    }
    if (header.total_bytes() > pool) return std::nullopt;
  } else if (header.type == FrameType::append_stream) {
    // Its topic is named in the control part: what that one takes is judged when the frame is whole.
    if (header.payload_bytes() > limits::kMessageBytesCeiling || header.total_bytes() > pool) return std::nullopt;
  } else if (header.payload_bytes() > 0) {
    return std::nullopt;  // no other request has a payload; what a newer client puts there is not for us
  }
  return std::min<std::uint64_t>(header.total_bytes(), pool);
}

void Connection::counted(Api api, Instant began, const Refusal* refusal) {
  FrontCounters::PerApi& counters = front_.count().apis[static_cast<std::size_t>(api)];
  if (refusal) {
    ++counters.refused[refusal->code];
  } else {
    ++counters.ok;
  }
  counters.latency.record(now() - began);
}

void Connection::log_refused(Api api, const Refusal& refusal, const std::string& traceparent) const {
  if (!log_enabled(LogLevel::debug)) return;
  log_debug("native.call_refused", "{} client={} {}: E{} {} trace={}", peer_, client_id_, name_of(api), static_cast<unsigned>(refusal.code),
            shortened(refusal.detail), traceparent.empty() ? "-" : shortened(traceparent));
}

// ---- calls --------------------------------------------------------------------------------------------------------------

template <class Request, class Reply>
void Connection::start_call(const Frame& frame, FrameType reply_type, Task<Answer<Reply>> (Connection::*handler)(std::uint64_t, Request)) {
  start<Request>(frame, reply_type, [this, handler, id = frame.header.id](Request&& request) { return (this->*handler)(id, std::move(request)); });
}

template <class Request, class Reply>
void Connection::start_call(const Frame& frame, FrameType reply_type, Task<Answer<Reply>> (*handler)(Caller, Request)) {
  start<Request>(frame, reply_type, [this, handler](Request&& request) { return handler({front_.service(), front_.runtime()}, std::move(request)); });
}

template <class Request, class F>
void Connection::start(const Frame& frame, FrameType reply_type, F handler) {
  Request request;
  if (!parse(frame.control, request)) {
    front_.log_garbage(peer_, fmt::format("a {} is not a valid message", name_of(api_of(frame.header.type))));
    return end(Errc::protocol, fmt::format("a {} is not a valid message", name_of(api_of(frame.header.type))));
  }
  const std::uint64_t id = frame.header.id;
  if (state_ == State::draining) {
    Refusal refusal{Errc::shutting_down, ""};
    wire_.send_error(id, refusal);
    return counted(api_of(frame.header.type), now(), &refusal);
  }
  Api api = api_of(frame.header.type);
  std::shared_ptr<CallDeadline> deadline;
  if (request.call().deadline_ms() > 0 && may_be_abandoned(api)) {
    deadline = std::make_shared<CallDeadline>(*this, api, id);
    deadline->fire = [](io::Timer* timer) noexcept {
      auto* self = static_cast<CallDeadline*>(timer);
      self->passed = true;
      Refusal refusal{changes_something(self->api) ? Errc::outcome_unknown : Errc::timeout, "the deadline passed before the answer"};
      self->connection.wire_.send_error(self->id, refusal);
    };
    front_.runtime().timers.arm(*deadline, now() + std::chrono::milliseconds{request.call().deadline_ms()});
  }
  // One answer larger than half of the pool passes as if it were half: a few of them at a time.
  std::uint64_t bytes = std::min(answer_bytes(*front_.service().catalog(), request), front_.service().memory().pool(flow::Pool::replies).limit() / 2);
  std::string traceparent = request.call().traceparent();
  ++calls_;
  scope_.spawn(run_call(api, id, reply_type, handler(std::move(request)), std::move(held_), bytes, std::move(traceparent), std::move(deadline)));
}

template <class Reply>
Task<void> Connection::run_call(Api api, std::uint64_t id, FrameType reply_type, Task<Answer<Reply>> call, Held, std::uint64_t answer_bytes,
                                std::string traceparent, std::shared_ptr<CallDeadline> deadline) {
  Instant began = now();
  Held memory;
  Answer<Reply> answer = refuse(Errc::too_many, "answers wait for memory");
  bool large = answer_bytes > kCallBytes;
  if (large) {
    ++large_answers_;
    while (answering_) co_await call_ended_.wait();
    answering_ = answer_waits_ = true;
    auto taken = co_await front_.service().memory().pool(flow::Pool::replies).acquire(front_.runtime().executor, answer_bytes);
    answer_waits_ = false;
    if (taken) memory = *std::move(taken);
    else if (taken.error().code == Errc::closed) answer = refuse(Errc::shutting_down);
  }
  if (!wire_.ended() && (!large || memory)) answer = co_await std::move(call);
  if (large) {
    answering_ = false;
    --large_answers_;
  }
  if (answer && control_of(*answer).ByteSizeLong() > kAnswerBytesMax) {
    answer = refuse(Errc::too_large, fmt::format("an answer of {} bytes; one holds {}", control_of(*answer).ByteSizeLong(), kAnswerBytesMax));
  }
  bool told = deadline && deadline->passed;
  deadline.reset();
  if (answer) {
    // Subscribing sends its reply itself, in step with the stream's first frames.
    if (!told && reply_type != FrameType::subscribe_reply) send_answer(wire_, reply_type, id, *answer);
    counted(api, began, nullptr);
  } else {
    if (!told) wire_.send_error(id, answer.error());
    counted(api, began, &answer.error());
    log_refused(api, answer.error(), traceparent);
  }
  wire_.hold(std::move(memory));
  after_call();
}

Task<Answer<proto::MetadataReply>> Connection::metadata(std::uint64_t, proto::MetadataRequest request) {
  if (static_cast<std::size_t>(request.topics_size()) > kNamesPerRequestMax)
    co_return refuse(Errc::invalid_argument, fmt::format("{} topics in one request, at most {}", request.topics_size(), kNamesPerRequestMax));
  proto::MetadataReply reply;
  const FrontOptions& options = front_.options();
  proto::BrokerInfo& broker = *reply.add_brokers();
  broker.set_node_id(options.node.value());
  broker.set_host(options.advertise_host);
  broker.set_port(options.advertise_port);
  std::shared_ptr<const cluster::Catalog> catalog = front_.service().catalog();
  std::size_t partitions = 0, bytes = reply.ByteSizeLong();
  // Looks at the size as it grows: an answer that is too large is never made whole.
  auto add = [&](const cluster::Topic& topic) {
    partitions += static_cast<std::size_t>(topic.partitions);
    proto::TopicInfo& info = *reply.add_topics();
    to_wire(topic, options.node, info);
    bytes += info.ByteSizeLong() + 8;
    return bytes <= kAnswerBytesMax;
  };
  bool fits = true;
  if (request.topics_size() == 0) {
    for (const auto& [name, topic] : catalog->by_name) {
      if (!topic->internal || request.include_internal()) fits = add(*topic);
      if (!fits) break;
    }
  } else {
    for (std::string_view each : different(request)) {
      std::string name{each};
      if (cluster::TopicPointer topic = catalog->find(name)) {
        fits = add(*topic);
      } else {
        bytes += name.size() + 8;
        fits = bytes <= kAnswerBytesMax;
        reply.add_missing(std::move(name));
      }
      if (!fits) break;
    }
  }
  if (!fits)
    co_return refuse(Errc::too_large, fmt::format("{} topics with {} partitions are more than one answer holds; name fewer topics", reply.topics_size(), partitions));
  co_return reply;
}

Task<Answer<proto::CreateTopicReply>> Connection::create_topic(std::uint64_t, proto::CreateTopicRequest request) {
  auto asked = from_wire(std::move(request));
  if (!asked) co_return failed<proto::CreateTopicReply>(std::move(asked).error());
  auto topic = co_await front_.service().create_topic(*std::move(asked));
  if (!topic) co_return failed<proto::CreateTopicReply>(std::move(topic).error());
  proto::CreateTopicReply reply;
  to_wire(**topic, front_.options().node, *reply.mutable_topic());
  co_return reply;
}

Task<Answer<proto::AlterTopicReply>> Connection::alter_topic(std::uint64_t, proto::AlterTopicRequest request) {
  auto asked = from_wire(std::move(request));
  if (!asked) co_return failed<proto::AlterTopicReply>(std::move(asked).error());
  auto topic = co_await front_.service().alter_topic(*std::move(asked));
  if (!topic) co_return failed<proto::AlterTopicReply>(std::move(topic).error());
  proto::AlterTopicReply reply;
  to_wire(**topic, front_.options().node, *reply.mutable_topic());
  co_return reply;
}

Task<Answer<proto::DescribeTopicReply>> Connection::describe_topic(std::uint64_t, proto::DescribeTopicRequest request) {
  auto description = co_await front_.service().describe_topic(std::move(*request.mutable_name()));
  if (!description) co_return failed<proto::DescribeTopicReply>(std::move(description).error());
  proto::DescribeTopicReply reply;
  to_wire(*description, front_.options().node, reply);
  co_return reply;
}

Task<Answer<proto::DeleteTopicReply>> Connection::delete_topic(std::uint64_t, proto::DeleteTopicRequest request) {
  auto done = co_await front_.service().delete_topic(std::move(*request.mutable_name()), request.validate_only());
  if (!done) co_return failed<proto::DeleteTopicReply>(std::move(done).error());
  co_return proto::DeleteTopicReply{};
}

Task<Answer<proto::DeleteRecordsReply>> Connection::delete_records(std::uint64_t, proto::DeleteRecordsRequest request) {
  auto asked = from_wire(std::move(request));
  if (!asked) co_return failed<proto::DeleteRecordsReply>(std::move(asked).error());
  auto starts = co_await front_.service().delete_records(*std::move(asked));
  if (!starts) co_return failed<proto::DeleteRecordsReply>(std::move(starts).error());
  proto::DeleteRecordsReply reply;
  for (const service::PartitionOffset& start : *starts) {
    proto::PartitionOffset& to = *reply.add_log_start();
    to.set_partition(start.partition.value());
    to.set_offset(start.offset.value());
  }
  co_return reply;
}

Task<Answer<proto::SkipDamageReply>> Connection::skip_damage(std::uint64_t, proto::SkipDamageRequest request) {
  auto done = co_await front_.service().skip_damage(std::move(*request.mutable_topic()), PartitionIndex{request.partition()});
  if (!done) co_return failed<proto::SkipDamageReply>(std::move(done).error());
  co_return proto::SkipDamageReply{};
}

Task<Answer<proto::ListOffsetsReply>> Connection::list_offsets(std::uint64_t, proto::ListOffsetsRequest request) {
  auto queries = from_wire(request);
  if (!queries) co_return failed<proto::ListOffsetsReply>(std::move(queries).error());
  auto listed = co_await front_.service().list_offsets(std::move(*request.mutable_topic()), *queries);
  if (!listed) co_return failed<proto::ListOffsetsReply>(std::move(listed).error());
  proto::ListOffsetsReply reply;
  for (std::size_t i = 0; i < listed->size(); ++i) to_wire((*queries)[i].partition, (*listed)[i], *reply.add_offsets());
  co_return reply;
}

// ---- streams ------------------------------------------------------------------------------------------------------------

Answer<void> Connection::check_new_stream(std::uint64_t id) {
  std::erase_if(subscriptions_, [](const auto& entry) { return entry.second->stopped(); });  // ended by an error of theirs
  if (id == 0) return refuse(Errc::invalid_argument, "stream id 0 is the connection itself");
  if (publish_.contains(id) || subscriptions_.contains(id)) return refuse(Errc::invalid_argument, fmt::format("stream id {} is in use", id));
  if (publish_.size() + subscriptions_.size() + opening_ >= limits::kStreamsPerConnectionMax)
    return refuse(Errc::too_many, fmt::format("{} streams on one connection", limits::kStreamsPerConnectionMax));
  return {};
}

Answer<Connection::Held> Connection::stream_memory(std::uint64_t bytes) {
  Held held;
  if (try_reserve(flow::Pool::streams, bytes, held)) return held;
  return refuse(Errc::too_many, "the memory for streams is used up (memory.client_bytes)");
}

Task<Answer<proto::OpenProducerReply>> Connection::open_producer(std::uint64_t id, proto::OpenProducerRequest request) {
  auto asked = from_wire(std::move(request));
  if (!asked) co_return failed<proto::OpenProducerReply>(std::move(asked).error());
  if (auto fine = check_new_stream(id); !fine) co_return failed<proto::OpenProducerReply>(std::move(fine).error());
  Answer<Held> memory = stream_memory(kPublishStreamBytes);
  if (!memory) co_return failed<proto::OpenProducerReply>(std::move(memory).error());
  ++opening_;
  auto opened = co_await front_.service().open_producer(*std::move(asked));
  --opening_;
  if (!opened) co_return failed<proto::OpenProducerReply>(std::move(opened).error());
  if (auto fine = check_new_stream(id); !fine) co_return failed<proto::OpenProducerReply>(std::move(fine).error());
  publish_.emplace(id, std::make_shared<PublishStream>(wire_, id, *opened, unanswered_, *std::move(memory)));
  proto::OpenProducerReply reply;
  to_wire(*opened->topic, front_.options().node, *reply.mutable_topic());
  reply.set_producer_id(opened->producer_id.value());
  reply.set_producer_epoch(opened->producer_epoch.value());
  reply.set_window_bytes(opened->window_bytes);
  reply.set_durability(reply.topic().durability());
  co_return reply;
}

Task<Answer<proto::CloseProducerReply>> Connection::close_producer(std::uint64_t id, proto::CloseProducerRequest) {
  // Publishes under way keep the stream until they are answered, behind this reply.
  if (publish_.erase(id) == 0) co_return refuse(Errc::closed, fmt::format("no publish stream {}", id));
  co_return proto::CloseProducerReply{};
}

void Connection::on_publish(const Frame& frame) {
  proto::Publish publish;
  if (!parse(frame.control, publish)) {
    front_.log_garbage(peer_, "a publish is not a valid message");
    return end(Errc::protocol, "a publish is not a valid message");
  }
  Instant began = now();
  auto at = publish_.find(frame.header.id);
  if (at == publish_.end()) {
    Refusal refusal{Errc::closed, fmt::format("no publish stream {}", frame.header.id)};
    wire_.send_error(frame.header.id, refusal, publish.ticket());
    return counted(Api::publish, began, &refusal);
  }
  std::shared_ptr<PublishStream> stream = at->second;
  std::uint64_t place = stream->begin(publish.ticket(), publish.partition());
  if (state_ == State::draining) return refuse_publish(*stream, place, {Errc::shutting_down, ""});
  cluster::TopicPointer topic = front_.service().catalog()->find(stream->topic()->id);
  stream->refresh(topic);
  if (!topic) return refuse_publish(*stream, place, {Errc::no_such_topic, stream->topic()->name});
  std::uint64_t most = topic->config.message_bytes_max;
  if (frame.discarded || frame.payload.size() > most) {
    std::size_t bytes = frame.header.payload_bytes();
    std::string detail = bytes > most ? fmt::format("a batch of {} bytes, message_bytes_max is {}", bytes, most)
                                      : fmt::format("a batch of {} bytes does not fit the broker's memory for requests (memory.client_bytes)", bytes);
    return refuse_publish(*stream, place, {Errc::too_large, std::move(detail), {{"message_bytes_max", fmt::format("{}", most)}}});
  }
  if (publish.has_expected_for_key()) return refuse_publish(*stream, place, {Errc::unsupported, "expected_for_key"});
  Result<BatchHeader> header = codec::validate_batch(frame.payload, {.message_bytes_max = most});
  if (!header) return refuse_publish(*stream, place, {header.error().code, header.error().detail});
  if (header->producer_id != stream->producer_id() || (header->producer_id != kNoProducer && header->producer_epoch != stream->producer_epoch()))
    return refuse_publish(*stream, place, {Errc::invalid_record, fmt::format("producer id {} epoch {}, the stream was opened for {} epoch {}",
                                                                             header->producer_id.value(), header->producer_epoch.value(),
                                                                             stream->producer_id().value(), stream->producer_epoch().value())});
  service::ProduceRequest request{.topic = topic->id, .partition = PartitionIndex{publish.partition()}, .batch = frame.keep(), .header = *header};
  if (publish.has_expected_end_offset()) request.expected_end_offset = Offset{publish.expected_end_offset()};
  if (publish.call().deadline_ms() > 0) request.deadline = began + std::chrono::milliseconds{publish.call().deadline_ms()};
  ++calls_;
  scope_.spawn(run_publish(std::move(stream), place, std::move(request), publish.call().traceparent(), std::move(held_)));
}

void Connection::refuse_publish(PublishStream& stream, std::uint64_t place, Refusal refusal) {
  counted(Api::publish, now(), &refusal);
  stream.answer(place, std::unexpected{std::move(refusal)});
}

Task<void> Connection::run_publish(std::shared_ptr<PublishStream> stream, std::uint64_t place, service::ProduceRequest request, std::string traceparent, Held held) {
  Instant began = now();
  held.shrink_to(request.batch.length + kCallBytes);
  Answer<service::ProduceReply> reply = co_await front_.service().produce(std::move(request));
  counted(Api::publish, began, reply ? nullptr : &reply.error());
  if (!reply) log_refused(Api::publish, reply.error(), traceparent);
  stream->answer(place, std::move(reply));
  held = Held{};
  after_call();
}

void Connection::window_changed() {
  std::uint64_t bytes = front_.service().producer_window_bytes();
  for (auto& [id, stream] : publish_) stream->tell_window(bytes);
}

Task<Answer<proto::SubscribeReply>> Connection::subscribe(std::uint64_t id, proto::SubscribeRequest request) {
  if (auto fine = check_new_stream(id); !fine) co_return failed<proto::SubscribeReply>(std::move(fine).error());
  cluster::TopicPointer topic = front_.service().catalog()->find(request.topic());
  if (!topic) co_return refuse(Errc::no_such_topic, request.topic());
  std::vector<proto::SubscribePartition> partitions{request.partitions().begin(), request.partitions().end()};
  std::size_t subscribed = partitions.size();
  for (const auto& [other, subscription] : subscriptions_) subscribed += subscription->partitions();
  if (subscribed > limits::kSubscribedPartitionsPerConnectionMax)
    co_return refuse(Errc::too_many, fmt::format("{} subscribed partitions on one connection, at most {}", subscribed, limits::kSubscribedPartitionsPerConnectionMax));
  Answer<Held> memory = stream_memory(kReaderBytes * std::min(partitions.size(), kNamesPerRequestMax));
  if (!memory) co_return failed<proto::SubscribeReply>(std::move(memory).error());
  Subscription::Options options{.id = id, .topic = topic, .out_of_range = request.out_of_range(),
                                .credit = flow::CreditWindow{request.credit_records(), request.credit_bytes()}, .memory = *std::move(memory)};
  ++opening_;
  auto starts = co_await Subscription::resolve(front_.service(), topic->name, std::move(partitions), request.out_of_range());
  --opening_;
  if (!starts) co_return failed<proto::SubscribeReply>(std::move(starts).error());
  if (auto fine = check_new_stream(id); !fine) co_return failed<proto::SubscribeReply>(std::move(fine).error());
  proto::SubscribeReply reply;
  to_wire(*topic, front_.options().node, *reply.mutable_topic());
  for (const Subscription::Start& start : *starts) {
    proto::SubscribedPartition& to = *reply.add_partitions();
    to.set_partition(start.partition.value());
    to.set_offset(start.offset.value());
    to.set_high_watermark(start.high_watermark.value());
    to.set_log_start(start.log_start.value());
  }
  wire_.send(FrameType::subscribe_reply, id, reply);
  if (!reading()) co_return reply;  // the connection is ending: nobody would stop a stream that begins now
  auto subscription = std::make_shared<Subscription>(wire_, front_.service(), front_.runtime(), front_.catching_up(), scope_, std::move(options));
  subscriptions_.emplace(id, subscription);
  subscription->start(*starts);
  co_return reply;
}

void Connection::on_credit(const Frame& frame) {
  proto::Credit credit;
  if (!parse(frame.control, credit)) return end(Errc::protocol, "a credit is not a valid message");
  ++front_.count().apis[static_cast<std::size_t>(Api::credit)].ok;
  auto at = subscriptions_.find(frame.header.id);
  if (at != subscriptions_.end()) at->second->grant(credit.records(), credit.bytes());  // otherwise it crossed the stream's end
}

Task<Answer<proto::SeekReply>> Connection::seek(std::uint64_t id, proto::SeekRequest request) {
  auto at = subscriptions_.find(id);
  if (at == subscriptions_.end() || at->second->stopped()) co_return refuse(Errc::closed, fmt::format("no subscription {}", id));
  std::shared_ptr<Subscription> subscription = at->second;
  auto reply = co_await subscription->seek(std::move(request));
  co_return reply;
}

Task<Answer<proto::UnsubscribeReply>> Connection::unsubscribe(std::uint64_t id, proto::UnsubscribeRequest) {
  auto at = subscriptions_.find(id);
  if (at == subscriptions_.end()) co_return refuse(Errc::closed, fmt::format("no subscription {}", id));
  at->second->stop();
  subscriptions_.erase(at);
  co_return proto::UnsubscribeReply{};
}

}  // namespace tailrace::broker::native
