#include "tests/sim/whole/clients.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "codec/validate.h"

namespace tailrace::broker::sim::whole {
namespace {

using namespace std::chrono_literals;

constexpr Duration kPatience = 700ms;

std::int64_t stamp(const ClientContext& context) { return context.now().time_since_epoch().count(); }

/// The value with its padding, so that records have different lengths.
std::string text_of(const history::Value& value) {
  std::string text = fmt::format("{}.{}", value.process, value.counter);
  text.resize(value.length, 'x');
  return text;
}

history::Value value_of(std::string_view text) {
  history::Value value{.process = 0, .length = static_cast<std::uint32_t>(text.size())};
  std::size_t dot = text.find('.'), end = text.find('x');
  if (end == std::string_view::npos) end = text.size();
  std::from_chars(text.data(), text.data() + dot, value.process);
  std::from_chars(text.data() + dot + 1, text.data() + end, value.counter);
  return value;
}

/// The node is asked to go on elsewhere, or nothing was decided: ask again.
bool try_again(Errc code) {
  switch (code) {
    case Errc::not_leader:
    case Errc::outcome_unknown:
    case Errc::shutting_down:
    case Errc::no_such_topic:  // not told yet
    case Errc::no_credit:
    case Errc::timeout:
    case Errc::too_many:
    case Errc::storage_full:
    case Errc::io_error:
    case Errc::cancelled: return true;
    default: return false;
  }
}

int next_node(ClientContext& context) { return static_cast<int>(context.random.below(static_cast<std::uint64_t>(context.nodes))); }

Task<void> produce(Node* node, service::ProduceRequest request, std::shared_ptr<Call<service::ProduceReply>> call) {
  std::uint64_t life = node->life();
  auto answer = co_await node->service().produce(std::move(request));
  if (!node->up() || node->life() != life) co_return;
  call->answer = std::move(answer);
  call->answered = true;
}

Task<void> fetch(Node* node, service::FetchRequest request, std::shared_ptr<Call<service::FetchReply>> call) {
  std::uint64_t life = node->life();
  service::Fetcher fetcher{node->service()};
  auto answer = co_await fetcher.fetch(std::move(request));
  if (!node->up() || node->life() != life) co_return;
  call->answer = std::move(answer);
  call->answered = true;
}

Task<void> list(Node* node, std::string topic, std::int32_t partition, std::shared_ptr<Call<std::vector<service::Answer<service::ListedOffset>>>> call) {
  std::uint64_t life = node->life();
  auto answer = co_await node->service().list_offsets(std::move(topic), {{PartitionIndex{partition}, {service::Position::Kind::end}}});
  if (!node->up() || node->life() != life) co_return;
  call->answer = std::move(answer);
  call->answered = true;
}

}  // namespace

std::string key_name(std::int32_t partition) { return fmt::format("t-{}", partition); }

// ---- producer ------------------------------------------------------------------------------------------------------------

Producer::Producer(ClientContext& context, std::uint32_t process, std::int32_t partition)
    : context_{context}, process_{process}, partition_{partition}, key_{context.history.key(key_name(partition))}, node_{next_node(context)} {}

void Producer::tick(bool more) {
  if (!pending_) {
    if (more) begin();
    return;
  }
  if (pending_->call && pending_->call->answered) return take_answer();
  if (!pending_->call || context_.now() >= pending_->patience) {
    if (pending_->call) node_ = next_node(context_);  // whatever became of it, it may still happen
    attempt();
  }
}

void Producer::begin() {
  pending_ = Pending{};
  std::uint64_t count = 1 + context_.random.below(4);
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t counter = ++counter_;
    auto least = fmt::format("{}.{}", process_, counter).size();
    auto length = context_.random.chance(1, 8) ? context_.random.between(least, 900) : context_.random.between(least, 200);
    pending_->values.push_back({.process = process_, .length = static_cast<std::uint32_t>(length), .counter = counter});
  }
  pending_->event = context_.history.send(process_, stamp(context_), key_, pending_->values, true);
  attempt();
}

void Producer::attempt() {
  pending_->call.reset();
  Node* node = context_.serving(node_);
  if (!node) {
    node_ = next_node(context_);
    return;
  }
  codec::BatchBuilder builder{{}};
  for (const history::Value& value : pending_->values) {
    std::string text = text_of(value);
    if (!builder.add({.timestamp = 1'000, .value = as_bytes(text)})) return context_.violate("a record does not fit a batch");
  }
  auto batch = builder.finish({.producer_id = ProducerId{process_}, .producer_epoch = ProducerEpoch{0}, .base_sequence = sequence_});
  auto header = batch ? codec::validate_batch(batch->bytes(), {}) : std::unexpected(Error{Errc::internal, "no batch"});
  if (!header) return context_.violate("a batch of ours is refused: " + header.error().detail);
  auto call = std::make_shared<Call<service::ProduceReply>>();
  call->node = node_;
  call->begun = context_.now();
  pending_->call = call;
  pending_->patience = call->begun + kPatience + Duration{std::chrono::milliseconds{context_.random.below(800)}};
  service::ProduceRequest request{.topic = context_.topic, .partition = PartitionIndex{partition_}, .batch = *batch, .header = *header};
  node->spawn(produce(node, std::move(request), call));
}

void Producer::take_answer() {
  int asked = pending_->call->node;
  service::Answer<service::ProduceReply> answer = std::move(pending_->call->answer);
  pending_->call.reset();
  if (!answer) {
    bool damaged = answer.error().code == Errc::corrupt && context_.rotten(asked);
    if (!try_again(answer.error().code) && !damaged) {
      return context_.violate(fmt::format("producer {} of {} is refused: {} {}", process_, key_name(partition_), describe(answer.error().code).name, answer.error().detail));
    }
    node_ = next_node(context_);
    return;
  }
  context_.history.sent(pending_->event, history::Type::ok, stamp(context_), answer->base_offset.value());
  duplicates_ += answer->duplicate ? 1 : 0;
  ++acknowledged_;
  sequence_ += static_cast<std::int32_t>(pending_->values.size());
  pending_.reset();
}

// ---- reader --------------------------------------------------------------------------------------------------------------

Reader::Reader(ClientContext& context, std::uint32_t process, std::int32_t partition)
    : context_{context}, process_{process}, partition_{partition}, key_{context.history.key(key_name(partition))}, node_{next_node(context)} {
  context_.history.assign(process_, stamp(context_), {key_});
}

void Reader::begin_final() {
  final_ = true;
  position_ = {};
  call_.reset();
  context_.history.seek(process_, stamp(context_), key_);
}

void Reader::tick() {
  if (call_ && call_->answered) take_answer();
  if (call_ && context_.now() < call_->begun + kPatience) return;
  if (call_) node_ = next_node(context_);
  call_.reset();
  Node* node = context_.serving(node_);
  if (!node) {
    node_ = next_node(context_);
    return;
  }
  call_ = std::make_shared<Call<service::FetchReply>>();
  call_->node = node_;
  call_->begun = context_.now();
  service::FetchRequest request{.topic = context_.topic, .partition = PartitionIndex{partition_}, .from = position_, .bytes_max = 8 * limits::kKiB};
  node->spawn(fetch(node, std::move(request), call_));
}

void Reader::take_answer() {
  std::int64_t begun = call_->begun.time_since_epoch().count();
  int asked = call_->node;
  service::Answer<service::FetchReply> answer = std::move(call_->answer);
  call_.reset();
  if (!answer) {
    Errc code = answer.error().code;
    node_ = next_node(context_);
    if (code == Errc::offset_out_of_range) {
      // Deleted before it was read; or asked of somebody who does not know yet that it leads no more.
      for (const service::Fact& fact : answer.error().facts) {
        std::int64_t start = 0;
        if (fact.name != "log_start") continue;
        std::from_chars(fact.value.data(), fact.value.data() + fact.value.size(), start);
        if (Offset{start} <= position_) continue;
        position_ = Offset{start};
        context_.history.seek(process_, stamp(context_), key_);
        context_.history.end(process_, begun, stamp(context_), key_, history::kUnknown, start);
      }
      return;
    }
    bool damaged = code == Errc::corrupt && context_.rotten(asked);
    if (!try_again(code) && !damaged) context_.violate(fmt::format("a reader of {} is refused: {} {}", key_name(partition_), describe(code).name, answer.error().detail));
    return;
  }
  std::vector<history::History::Read> reads;
  for (const Slice& batch : answer->batches) {
    auto reader = codec::BatchReader::open(batch.bytes());
    if (!reader) return context_.violate("a fetched batch is not one");
    codec::RecordView record;
    while (reader->next(record)) {
      if (record.offset < position_) continue;
      reads.push_back({record.offset.value(), value_of(as_text(record.value.value_or(Bytes{})))});
    }
    if (reader->error()) return context_.violate("a fetched batch breaks off: " + reader->error()->detail);
  }
  ++polls_;
  if (!reads.empty()) context_.history.poll(process_, begun, stamp(context_), key_, reads, final_);
  position_ = std::max(position_, answer->next);
}

// ---- surveyor ------------------------------------------------------------------------------------------------------------

Surveyor::Surveyor(ClientContext& context, std::uint32_t process, std::int32_t partition)
    : context_{context}, process_{process}, partition_{partition}, key_{context.history.key(key_name(partition))}, node_{next_node(context)} {}

void Surveyor::tick() {
  if (call_ && call_->answered) {
    bool ok = call_->answer && call_->answer->at(0);
    if (ok) {
      const service::ListedOffset& listed = *call_->answer->at(0);
      ++answers_;
      context_.history.end(process_, call_->begun.time_since_epoch().count(), stamp(context_), key_, listed.offset.value(), listed.log_start.value());
    } else {
      node_ = next_node(context_);
    }
    call_.reset();
  }
  if (call_ && context_.now() < call_->begun + kPatience) return;
  if (call_) node_ = next_node(context_);
  call_.reset();
  Node* node = context_.serving(node_);
  if (!node) {
    node_ = next_node(context_);
    return;
  }
  if (!context_.random.chance(1, 4)) return;
  call_ = std::make_shared<Call<std::vector<service::Answer<service::ListedOffset>>>>();
  call_->node = node_;
  call_->begun = context_.now();
  node->spawn(list(node, context_.topic_name, partition_, call_));
}

}  // namespace tailrace::broker::sim::whole
