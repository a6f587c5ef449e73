// What the fake broker does with each frame, and where faults strike.
#include <algorithm>

#include "model/limits.h"
#include "model/topic.h"
#include "testing/fake_broker.h"

namespace tailrace::inline v1::testing {

using proto::FrameType;

namespace {

template <class Message>
std::optional<Message> decode(broker::Bytes control) {
  Message message;
  if (!message.ParseFromArray(control.data(), static_cast<int>(control.size()))) return std::nullopt;
  return message;
}

std::vector<std::byte> frame_of(FrameType type, std::uint64_t id, const google::protobuf::MessageLite& message, broker::Bytes payload) {
  std::size_t control = message.ByteSizeLong();
  std::vector<std::byte> bytes(proto::kFrameHeaderBytes + control + payload.size());
  proto::write_frame_header(bytes.data(), type, id, control, payload.size());
  message.SerializeToArray(bytes.data() + proto::kFrameHeaderBytes, static_cast<int>(control));
  std::ranges::copy(payload, bytes.begin() + static_cast<std::ptrdiff_t>(proto::kFrameHeaderBytes + control));
  return bytes;
}

}  // namespace

std::optional<Fault> FakeBroker::Impl::strike(Request request) {
  for (auto at = faults.begin(); at != faults.end(); ++at) {
    if (at->on != request && at->on != Request::any) continue;
    if (at->skip > 0) {
      --at->skip;
      continue;
    }
    Fault fault = *at;
    if (at->times > 0 && --at->times == 0) faults.erase(at);
    return fault;
  }
  return std::nullopt;
}

/// Faults that strike before anything is done. True: the request is over.
bool FakeBroker::Impl::before(Connection& connection, std::uint64_t id, const std::optional<Fault>& fault, std::uint64_t ticket) {
  if (!fault) return false;
  switch (fault->action) {
    case Action::drop_before_apply: kill(connection); return true;
    case Action::swallow: return true;
    case Action::error: refuse(connection, id, fault->code, "injected", {}, ticket); return true;
    default: return false;
  }
}

void FakeBroker::Impl::push(Connection& connection, FrameType type, std::uint64_t id, const google::protobuf::MessageLite& message,
                            broker::Bytes payload, std::function<void()> before_sending) {
  connection.outbox.push_back({.bytes = frame_of(type, id, message, payload), .due = {}, .before = std::move(before_sending)});
  connection.changed.notify_all();
}

void FakeBroker::Impl::answer(Connection& connection, FrameType type, std::uint64_t id, const google::protobuf::MessageLite& message,
                              const std::optional<Fault>& fault, std::function<void()> before_sending, std::uint64_t ticket) {
  if (!fault) return push(connection, type, id, message, {}, std::move(before_sending));
  if (fault->action == Action::error_after_apply) return refuse(connection, id, fault->code, "injected", {}, ticket, std::move(before_sending));
  Outgoing out{.bytes = frame_of(type, id, message, {}), .due = {}, .before = std::move(before_sending)};
  switch (fault->action) {
    case Action::drop_after_apply: return kill(connection);
    case Action::delay: out.due = Clock::now() + fault->delay; break;
    case Action::truncate:
      out.bytes.resize(out.bytes.size() / 2);
      out.then_close = true;
      break;
    case Action::garbage: std::ranges::fill(out.bytes, std::byte{0xff}); break;
    case Action::oversize:
      proto::write_frame_header(out.bytes.data(), type, id, 0, broker::limits::kFrameBytesMax + 1);
      out.bytes.resize(proto::kFrameHeaderBytes);
      break;
    case Action::wrong_type: proto::write_frame_header(out.bytes.data(), FrameType::hello_reply, id, out.bytes.size() - proto::kFrameHeaderBytes, 0); break;
    default: break;
  }
  connection.outbox.push_back(std::move(out));
  connection.changed.notify_all();
}

void FakeBroker::Impl::refuse(Connection& connection, std::uint64_t id, Errc code, std::string message, std::map<std::string, std::string> facts,
                              std::uint64_t ticket, std::function<void()> before_sending) {
  const ErrcInfo& info = tailrace::describe(code);
  proto::ErrorReply reply;
  reply.set_code(static_cast<std::uint32_t>(code));
  reply.set_message(std::move(message));
  reply.set_retriable(info.retriable);
  reply.set_maybe_applied(info.maybe_applied);
  reply.set_hint(std::string{info.hint});
  reply.set_ticket(ticket);
  for (auto& [name, value] : facts) {
    auto* fact = reply.add_facts();
    fact->set_name(name);
    fact->set_value(value);
  }
  push(connection, FrameType::error, id, reply, {}, std::move(before_sending));
}

FakeTopic& FakeBroker::Impl::make_topic(const std::string& name, std::int32_t partitions) {
  auto& topic = topics[name];
  topic.name = name;
  topic.id = std::string(15, '\0') + static_cast<char>(topics.size());
  topic.partitions.resize(static_cast<std::size_t>(partitions));
  return topic;
}
FakeTopic* FakeBroker::Impl::find_topic(const std::string& name) {
  auto at = topics.find(name);
  if (at != topics.end()) return &at->second;
  if (options.auto_create_partitions > 0) return &make_topic(name, options.auto_create_partitions);
  return nullptr;
}

void FakeBroker::Impl::describe(const FakeTopic& topic, proto::TopicInfo& to) const {
  to.set_name(topic.name);
  to.set_id(topic.id);
  to.set_message_bytes_max(options.message_bytes_max);
  to.set_timestamp_type(topic.log_append_time ? proto::TIMESTAMP_LOG_APPEND_TIME : proto::TIMESTAMP_CREATE_TIME);
  for (std::size_t i = 0; i < topic.partitions.size(); ++i) {
    auto* partition = to.add_partitions();
    partition->set_index(static_cast<std::int32_t>(i));
    partition->set_leader(1);
    partition->set_leader_epoch(1);
  }
}

void FakeBroker::Impl::handle(Connection& connection, const proto::FrameHeader& header, broker::Bytes control, broker::Bytes payload) {
  std::uint64_t id = header.id;
  if (!connection.greeted && header.type != FrameType::hello) return kill(connection);
  switch (header.type) {
    case FrameType::hello: {
      auto fault = strike(Request::hello);
      if (before(connection, id, fault)) return;
      connection.greeted = true;
      proto::HelloReply reply;
      reply.set_major(proto::kProtocolMajor);
      reply.set_minor(proto::kProtocolMinor);
      reply.set_cluster_id("fake");
      reply.set_node_id(1);
      reply.set_software("tailrace-fake");
      reply.set_frame_bytes_max(broker::limits::kFrameBytesMax);
      reply.set_streams_max(64);
      reply.set_calls_in_flight_max(64);
      reply.set_idle_timeout_ms(static_cast<std::uint32_t>(options.idle_timeout.count()));
      return answer(connection, FrameType::hello_reply, id, reply, fault);
    }
    case FrameType::ping: {
      auto ping = decode<proto::Ping>(control);
      proto::Pong pong;
      if (ping) pong.set_token(ping->token());
      return push(connection, FrameType::pong, id, pong);
    }
    case FrameType::goodbye: {
      ++counters.goodbyes;
      proto::Pong nothing;
      push(connection, FrameType::pong, 0, nothing);
      connection.outbox.back().then_close = true;
      return;
    }
    case FrameType::metadata: {
      auto request = decode<proto::MetadataRequest>(control);
      if (!request) return kill(connection);
      auto fault = strike(Request::metadata);
      if (before(connection, id, fault)) return;
      proto::MetadataReply reply;
      auto* broker_info = reply.add_brokers();
      broker_info->set_node_id(1);
      broker_info->set_host("127.0.0.1");
      broker_info->set_port(bound_port);
      for (const auto& name : request->topics()) {
        if (FakeTopic* topic = find_topic(name)) describe(*topic, *reply.add_topics());
        else reply.add_missing(name);
      }
      if (request->topics_size() == 0) {
        for (const auto& [name, topic] : topics) describe(topic, *reply.add_topics());
      }
      return answer(connection, FrameType::metadata_reply, id, reply, fault);
    }
    case FrameType::create_topic: {
      auto request = decode<proto::CreateTopicRequest>(control);
      if (!request) return kill(connection);
      auto fault = strike(Request::create_topic);
      if (before(connection, id, fault)) return;
      if (auto valid = broker::check_topic_name(request->name()); !valid) return refuse(connection, id, valid.error().code, valid.error().detail);
      if (topics.contains(request->name())) return refuse(connection, id, Errc::topic_exists, request->name());
      if (request->partitions() < 1) return refuse(connection, id, Errc::invalid_argument, "partitions");
      proto::CreateTopicReply reply;
      FakeTopic& topic = make_topic(request->name(), request->partitions());
      for (const auto& entry : request->config()) topic.config[entry.key()] = entry.value();
      topic.log_append_time = topic.config.contains("timestamp_type") && topic.config.at("timestamp_type") == "log_append_time";
      describe(topic, *reply.mutable_topic());
      if (request->validate_only()) topics.erase(request->name());
      return answer(connection, FrameType::create_topic_reply, id, reply, fault);
    }
    case FrameType::alter_topic: {
      auto request = decode<proto::AlterTopicRequest>(control);
      if (!request) return kill(connection);
      FakeTopic* topic = find_topic(request->name());
      if (!topic) return refuse(connection, id, Errc::no_such_topic, request->name());
      auto count = static_cast<std::int32_t>(topic->partitions.size());
      if (request->partitions() != 0 && request->partitions() <= count) return refuse(connection, id, Errc::invalid_argument, "partitions can only grow");
      if (request->partitions() > count) topic->partitions.resize(static_cast<std::size_t>(request->partitions()));
      for (const auto& entry : request->set()) topic->config[entry.key()] = entry.value();
      for (const auto& key : request->unset()) topic->config.erase(key);
      proto::AlterTopicReply reply;
      describe(*topic, *reply.mutable_topic());
      return push(connection, FrameType::alter_topic_reply, id, reply);
    }
    case FrameType::describe_topic: {
      auto request = decode<proto::DescribeTopicRequest>(control);
      if (!request) return kill(connection);
      FakeTopic* topic = find_topic(request->name());
      if (!topic) return refuse(connection, id, Errc::no_such_topic, request->name());
      proto::DescribeTopicReply reply;
      describe(*topic, *reply.mutable_topic());
      for (const auto& [key, value] : topic->config) {
        auto* entry = reply.add_config();
        entry->set_key(key);
        entry->set_value(value);
      }
      for (std::size_t i = 0; i < topic->partitions.size(); ++i) {
        const FakePartition& partition = topic->partitions[i];
        auto* to = reply.add_partitions();
        to->set_index(static_cast<std::int32_t>(i));
        to->set_leader(1);
        to->set_leader_epoch(1);
        to->set_log_start(partition.log_start);
        to->set_high_watermark(partition.end);
        to->set_log_end(partition.end);
        to->set_first_time_ms(-1);
        to->set_last_time_ms(-1);
      }
      return push(connection, FrameType::describe_topic_reply, id, reply);
    }
    case FrameType::delete_topic: {
      auto request = decode<proto::DeleteTopicRequest>(control);
      if (!request) return kill(connection);
      if (!topics.contains(request->name())) return refuse(connection, id, Errc::no_such_topic, request->name());
      if (!request->validate_only()) topics.erase(request->name());
      return push(connection, FrameType::delete_topic_reply, id, proto::DeleteTopicReply{});
    }
    case FrameType::delete_records: {
      auto request = decode<proto::DeleteRecordsRequest>(control);
      if (!request) return kill(connection);
      FakeTopic* topic = find_topic(request->topic());
      if (!topic) return refuse(connection, id, Errc::no_such_topic, request->topic());
      proto::DeleteRecordsReply reply;
      for (const auto& before_offset : request->before()) {
        if (before_offset.partition() < 0 || before_offset.partition() >= static_cast<std::int32_t>(topic->partitions.size())) {
          return refuse(connection, id, Errc::no_such_partition, std::to_string(before_offset.partition()));
        }
        FakePartition& partition = topic->partitions[static_cast<std::size_t>(before_offset.partition())];
        std::int64_t to = before_offset.offset() < 0 ? partition.end : before_offset.offset();
        if (to > partition.end) return refuse(connection, id, Errc::offset_out_of_range, std::to_string(to));
        if (!request->validate_only()) partition.log_start = std::max(partition.log_start, to);
        auto* out = reply.add_log_start();
        out->set_partition(before_offset.partition());
        out->set_offset(partition.log_start);
      }
      return push(connection, FrameType::delete_records_reply, id, reply);
    }
    case FrameType::skip_damage: {
      auto request = decode<proto::SkipDamageRequest>(control);
      if (!request) return kill(connection);
      FakeTopic* topic = find_topic(request->topic());
      if (!topic) return refuse(connection, id, Errc::no_such_topic, request->topic());
      if (request->partition() < 0 || request->partition() >= static_cast<std::int32_t>(topic->partitions.size())) {
        return refuse(connection, id, Errc::no_such_partition, std::to_string(request->partition()));
      }
      return push(connection, FrameType::skip_damage_reply, id, proto::SkipDamageReply{});  // nothing here is ever damaged
    }
    case FrameType::list_offsets: return on_list_offsets(connection, id, control);
    case FrameType::open_producer: return on_open_producer(connection, id, control);
    case FrameType::publish: return on_publish(connection, id, control, payload);
    case FrameType::close_producer:
      connection.producers.erase(id);
      return push(connection, FrameType::close_producer_reply, id, proto::CloseProducerReply{});
    case FrameType::subscribe: return on_subscribe(connection, id, control);
    case FrameType::seek: return on_seek(connection, id, control);
    case FrameType::credit: {
      auto credit = decode<proto::Credit>(control);
      auto stream = connection.subscriptions.find(id);
      if (!credit || stream == connection.subscriptions.end()) return;
      if (before(connection, id, strike(Request::credit))) return;
      stream->second.credit_records += static_cast<std::int64_t>(credit->records());
      stream->second.credit_bytes += static_cast<std::int64_t>(credit->bytes());
      return pump(connection, id, stream->second);
    }
    case FrameType::unsubscribe:
      connection.subscriptions.erase(id);
      return push(connection, FrameType::unsubscribe_reply, id, proto::UnsubscribeReply{});
    default:
      if (static_cast<std::uint16_t>(header.type) < 0x8000) refuse(connection, id, Errc::protocol, "unknown frame type");
  }
}

void FakeBroker::Impl::on_open_producer(Connection& connection, std::uint64_t id, broker::Bytes control) {
  auto request = decode<proto::OpenProducerRequest>(control);
  if (!request) return kill(connection);
  auto fault = strike(Request::open_producer);
  if (before(connection, id, fault)) return;
  FakeTopic* topic = find_topic(request->topic());
  if (!topic) return refuse(connection, id, Errc::no_such_topic, request->topic());
  ProducerStream stream{.topic = request->topic()};
  if (!request->not_idempotent()) {
    if (request->has_producer_id() && !given_ids.contains(request->producer_id())) {
      return refuse(connection, id, Errc::unknown_producer, std::to_string(request->producer_id()));
    }
    stream.producer_id = request->has_producer_id() ? request->producer_id() : next_producer_id++;
    given_ids.insert(stream.producer_id);
  }
  ++counters.producers_opened;
  proto::OpenProducerReply reply;
  describe(*topic, *reply.mutable_topic());
  reply.set_producer_id(stream.producer_id);
  reply.set_producer_epoch(0);
  reply.set_window_bytes(window);
  connection.producers[id] = stream;
  answer(connection, FrameType::open_producer_reply, id, reply, fault);
}

void FakeBroker::Impl::on_publish(Connection& connection, std::uint64_t id, broker::Bytes control, broker::Bytes payload) {
  auto request = decode<proto::Publish>(control);
  if (!request) return kill(connection);
  auto at = connection.producers.find(id);
  if (at == connection.producers.end()) return;
  ProducerStream& stream = at->second;
  ++counters.publishes;
  stream.unanswered_bytes += payload.size();
  counters.unanswered_bytes_max = std::max(counters.unanswered_bytes_max, stream.unanswered_bytes);
  auto& batches = ++stream.unanswered_batches[request->partition()];
  counters.unanswered_batches_max = std::max(counters.unanswered_batches_max, batches);
  auto answered = [&connection, id, size = payload.size(), partition = request->partition()] {
    auto open = connection.producers.find(id);
    if (open == connection.producers.end()) return;
    open->second.unanswered_bytes -= size;
    --open->second.unanswered_batches[partition];
  };
  std::uint64_t ticket = request->ticket();
  auto fault = strike(Request::publish);
  if (fault && fault->action == Action::error) return refuse(connection, id, fault->code, "injected", {}, ticket, answered);
  if (before(connection, id, fault, ticket)) return;
  FakeTopic* topic = find_topic(stream.topic);
  if (!topic) return refuse(connection, id, Errc::no_such_topic, stream.topic, {}, ticket, answered);
  if (request->partition() < 0 || request->partition() >= static_cast<std::int32_t>(topic->partitions.size())) {
    return refuse(connection, id, Errc::no_such_partition, std::to_string(request->partition()), {}, ticket, answered);
  }
  std::optional<std::int64_t> expected;
  if (request->has_expected_end_offset()) expected = request->expected_end_offset();
  auto& partition = topic->partitions[static_cast<std::size_t>(request->partition())];
  auto done = publish(*topic, partition, payload, expected, options.message_bytes_max, counters);
  if (!done) {
    std::map<std::string, std::string> facts;
    if (done.error().code == Errc::wrong_version) facts["actual_end_offset"] = done.error().detail;
    return refuse(connection, id, done.error().code, done.error().detail, facts, ticket, answered);
  }
  proto::PublishReply reply;
  reply.set_ticket(ticket);
  reply.set_partition(request->partition());
  reply.set_base_offset(done->offset);
  reply.set_log_append_time_ms(done->append_time);
  reply.set_duplicate(done->duplicate);
  answer(connection, FrameType::publish_reply, id, reply, fault, answered, ticket);
  pump_all();
}

broker::Result<std::int64_t> FakeBroker::Impl::resolve(const FakePartition& partition, const proto::StartAt& at, proto::OutOfRange policy, bool& reset) const {
  reset = false;
  switch (at.at_case()) {
    case proto::StartAt::kEnd: return partition.end;
    case proto::StartAt::kTimeMs: return partition.first_at(at.time_ms());
    case proto::StartAt::kLast: {
      auto held = static_cast<std::uint64_t>(partition.end - partition.log_start);
      return partition.end - static_cast<std::int64_t>(std::min(held, at.last()));
    }
    case proto::StartAt::kOffset: {
      if (at.offset() >= partition.log_start && at.offset() <= partition.end) return at.offset();
      reset = true;
      if (policy == proto::OUT_OF_RANGE_EARLIEST) return partition.log_start;
      if (policy == proto::OUT_OF_RANGE_LATEST) return partition.end;
      return broker::fail(Errc::offset_out_of_range, std::to_string(at.offset()) + " is outside " + std::to_string(partition.log_start) + ".." + std::to_string(partition.end));
    }
    default: return partition.log_start;
  }
}

void FakeBroker::Impl::on_list_offsets(Connection& connection, std::uint64_t id, broker::Bytes control) {
  auto request = decode<proto::ListOffsetsRequest>(control);
  if (!request) return kill(connection);
  FakeTopic* topic = find_topic(request->topic());
  if (!topic) return refuse(connection, id, Errc::no_such_topic, request->topic());
  proto::ListOffsetsReply reply;
  for (const auto& query : request->queries()) {
    if (query.partition() < 0 || query.partition() >= static_cast<std::int32_t>(topic->partitions.size())) {
      return refuse(connection, id, Errc::no_such_partition, std::to_string(query.partition()));
    }
    const FakePartition& partition = topic->partitions[static_cast<std::size_t>(query.partition())];
    auto* out = reply.add_offsets();
    out->set_partition(query.partition());
    out->set_time_ms(-1);
    if (query.has_end()) out->set_offset(partition.end);
    else if (query.has_time_ms()) out->set_offset(partition.first_at(query.time_ms()));
    else out->set_offset(partition.log_start);
  }
  push(connection, FrameType::list_offsets_reply, id, reply);
}

void FakeBroker::Impl::on_subscribe(Connection& connection, std::uint64_t id, broker::Bytes control) {
  auto request = decode<proto::SubscribeRequest>(control);
  if (!request) return kill(connection);
  auto fault = strike(Request::subscribe);
  if (before(connection, id, fault)) return;
  FakeTopic* topic = find_topic(request->topic());
  if (!topic) return refuse(connection, id, Errc::no_such_topic, request->topic());
  SubscribeStream stream{.topic = request->topic(), .credit_records = static_cast<std::int64_t>(request->credit_records()),
                         .credit_bytes = static_cast<std::int64_t>(request->credit_bytes()), .policy = request->out_of_range()};
  proto::SubscribeReply reply;
  describe(*topic, *reply.mutable_topic());
  for (const auto& wanted : request->partitions()) {
    if (wanted.partition() < 0 || wanted.partition() >= static_cast<std::int32_t>(topic->partitions.size())) {
      return refuse(connection, id, Errc::no_such_partition, std::to_string(wanted.partition()), {{"partition", std::to_string(wanted.partition())}});
    }
    const FakePartition& partition = topic->partitions[static_cast<std::size_t>(wanted.partition())];
    Reader reader;
    auto start = resolve(partition, wanted.start(), stream.policy, reader.reset);
    if (!start) {
      return refuse(connection, id, start.error().code, start.error().detail,
                    {{"partition", std::to_string(wanted.partition())}, {"log_start", std::to_string(partition.log_start)}, {"high_watermark", std::to_string(partition.end)}});
    }
    reader.next = *start;
    if (wanted.has_until()) reader.until = wanted.until();
    stream.readers[wanted.partition()] = reader;
    auto* out = reply.add_partitions();
    out->set_partition(wanted.partition());
    out->set_offset(*start);
    out->set_high_watermark(partition.end);
    out->set_log_start(partition.log_start);
  }
  auto& placed = connection.subscriptions[id] = std::move(stream);
  answer(connection, FrameType::subscribe_reply, id, reply, fault);
  pump(connection, id, placed);
}

void FakeBroker::Impl::on_seek(Connection& connection, std::uint64_t id, broker::Bytes control) {
  auto request = decode<proto::SeekRequest>(control);
  auto at = connection.subscriptions.find(id);
  if (!request || at == connection.subscriptions.end()) return;
  auto fault = strike(Request::seek);
  if (before(connection, id, fault)) return;
  SubscribeStream& stream = at->second;
  FakeTopic* topic = find_topic(stream.topic);
  if (!topic) return;
  proto::SeekReply reply;
  for (const auto& moved : request->partitions()) {
    auto reader = stream.readers.find(moved.partition());
    if (reader == stream.readers.end()) return refuse(connection, id, Errc::no_such_partition, std::to_string(moved.partition()));
    const FakePartition& partition = topic->partitions[static_cast<std::size_t>(moved.partition())];
    bool reset = false;
    auto start = resolve(partition, moved.start(), stream.policy, reset);
    if (!start) {
      return refuse(connection, id, start.error().code, start.error().detail,
                    {{"partition", std::to_string(moved.partition())}, {"log_start", std::to_string(partition.log_start)}, {"high_watermark", std::to_string(partition.end)}});
    }
    reader->second = Reader{.next = *start, .until = moved.has_until() ? std::optional{moved.until()} : std::nullopt, .paused = reader->second.paused, .reset = reset};
    auto* out = reply.add_partitions();
    out->set_partition(moved.partition());
    out->set_offset(*start);
    out->set_high_watermark(partition.end);
    out->set_log_start(partition.log_start);
  }
  if (request->partitions_size() > 0) ++stream.seek_count;
  for (std::int32_t index : request->pause()) stream.readers[index].paused = true;
  for (std::int32_t index : request->resume()) stream.readers[index].paused = false;
  reply.set_seek_count(stream.seek_count);
  answer(connection, FrameType::seek_reply, id, reply, fault);
  pump(connection, id, stream);
}

void FakeBroker::Impl::end_stream(Connection& connection, std::uint64_t id, Errc code, const std::string& message, std::map<std::string, std::string> facts) {
  connection.subscriptions.erase(id);
  refuse(connection, id, code, message, std::move(facts));
}

void FakeBroker::Impl::pump_all() {
  for (auto& connection : connections) {
    std::vector<std::uint64_t> ids;
    for (auto& [id, stream] : connection->subscriptions) ids.push_back(id);
    for (std::uint64_t id : ids) {
      if (auto at = connection->subscriptions.find(id); at != connection->subscriptions.end()) pump(*connection, id, at->second);
    }
  }
}

/// Sends whatever credit, pauses and ends allow: one batch a frame.
void FakeBroker::Impl::pump(Connection& connection, std::uint64_t id, SubscribeStream& stream) {
  if (connection.dead) return;
  auto at = topics.find(stream.topic);
  if (at == topics.end()) return;
  for (auto& [index, reader] : stream.readers) {
    const FakePartition& partition = at->second.partitions[static_cast<std::size_t>(index)];
    while (!reader.paused && !reader.finished) {
      if (reader.next < partition.log_start || reader.next > partition.end) {
        if (stream.policy == proto::OUT_OF_RANGE_ERROR) {
          return end_stream(connection, id, Errc::offset_out_of_range, std::to_string(reader.next),
                            {{"partition", std::to_string(index)}, {"log_start", std::to_string(partition.log_start)}, {"high_watermark", std::to_string(partition.end)}});
        }
        reader.next = stream.policy == proto::OUT_OF_RANGE_EARLIEST ? partition.log_start : partition.end;
        reader.reset = true;
      }
      proto::Records records;
      records.set_partition(index);
      records.set_first_offset(reader.next);
      records.set_high_watermark(partition.end);
      records.set_seek_count(stream.seek_count);
      records.set_reset(reader.reset);
      if (reader.until && reader.next >= *reader.until) {
        reader.finished = true;
        records.set_finished(true);
        push(connection, FrameType::records, id, records);
        break;
      }
      auto batch = std::ranges::find_if(partition.batches, [&](const StoredBatch& b) { return b.next > reader.next; });
      if (batch == partition.batches.end()) {
        if (reader.told_end != partition.end || reader.reset) {
          reader.told_end = partition.end;
          reader.reset = false;
          records.set_reached_end(true);
          push(connection, FrameType::records, id, records);
        }
        break;
      }
      if (stream.credit_records <= 0 || stream.credit_bytes <= 0) break;
      auto count = static_cast<std::uint32_t>(batch->next - std::max(batch->base, reader.next));
      stream.credit_records -= count;
      stream.credit_bytes -= static_cast<std::int64_t>(batch->bytes.length);
      reader.next = batch->next;
      reader.reset = false;
      records.set_records(count);
      records.set_reached_end(reader.next >= partition.end);
      if (reader.next >= partition.end) reader.told_end = partition.end;
      if (reader.until && reader.next >= *reader.until) {
        reader.finished = true;
        records.set_finished(true);
      }
      std::vector<std::byte> bytes{batch->bytes.bytes().begin(), batch->bytes.bytes().end()};
      if (corrupting > 0) {
        --corrupting;
        bytes.back() ^= std::byte{1};
      }
      push(connection, FrameType::records, id, records, bytes);
    }
  }
}

}  // namespace tailrace::inline v1::testing
