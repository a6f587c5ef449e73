#include "native/subscription.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "io/wait.h"
#include "model/record_batch.h"

namespace tailrace::broker::native {
namespace {

using service::Answer;
using service::refuse;

constexpr Duration kFetchWait = 60s;      // then the fetch is simply made again
constexpr Duration kMemoryPatience = 1s;  // asks again for memory when so many wait that nobody will call

std::optional<Offset> offset_fact(const service::Refusal& refusal, std::string_view name) {
  for (const service::Fact& fact : refusal.facts) {
    if (fact.name != name) continue;
    std::int64_t value = 0;
    auto [end, error] = std::from_chars(fact.value.data(), fact.value.data() + fact.value.size(), value);
    if (error == std::errc{} && end == fact.value.data() + fact.value.size()) return Offset{value};
  }
  return std::nullopt;
}

/// Where the policy moves a reader whose offset is not there; nullopt: it wants the error.
std::optional<Offset> moved_by(proto::OutOfRange policy, const service::Refusal& refusal) {
  if (refusal.code != Errc::offset_out_of_range) return std::nullopt;
  switch (policy) {
    case proto::OUT_OF_RANGE_EARLIEST: return offset_fact(refusal, "log_start");
    case proto::OUT_OF_RANGE_LATEST: return offset_fact(refusal, "high_watermark");
    default: return std::nullopt;
  }
}

/// Leaves the first batch and what fits; the rest is fetched again, from the hot tail most of the time.
void cut_to(service::FetchReply& reply, std::uint64_t bytes) {
  while (reply.batches.size() > 1 && reply.bytes > bytes) {
    auto header = read_batch_header(reply.batches.back().bytes(), limits::kMessageBytesCeiling);
    if (!header) return;  // deliver() says so
    reply.next = header->base_offset;
    reply.bytes -= reply.batches.back().length;
    reply.batches.pop_back();
  }
}

}  // namespace

Task<Answer<std::vector<Subscription::Start>>> Subscription::resolve(service::ShardService& service, std::string topic,
                                                                     std::vector<proto::SubscribePartition> partitions, proto::OutOfRange policy) {
  if (partitions.empty()) co_return refuse(Errc::invalid_argument, "no partition is named");
  if (partitions.size() > kNamesPerRequestMax)
    co_return refuse(Errc::invalid_argument, fmt::format("{} partitions in one request, at most {}", partitions.size(), kNamesPerRequestMax));
  std::set<std::int32_t> seen;
  std::vector<service::ListOffsetsQuery> queries;
  for (const proto::SubscribePartition& partition : partitions) {
    if (!seen.insert(partition.partition()).second)
      co_return refuse(Errc::invalid_argument, fmt::format("partition {} is named twice", partition.partition()));
    queries.push_back({PartitionIndex{partition.partition()}, from_wire(partition.start())});
  }
  auto listed = co_await service.list_offsets(topic, queries);
  if (!listed) co_return std::unexpected{std::move(listed).error()};
  std::vector<Start> out;
  for (std::size_t i = 0; i < partitions.size(); ++i) {
    const Answer<service::ListedOffset>& answer = (*listed)[i];
    Start start{.partition = queries[i].partition};
    if (partitions[i].has_until()) start.until = Offset{partitions[i].until()};
    if (answer) {
      start.offset = answer->offset;
      start.high_watermark = answer->high_watermark;
      start.log_start = answer->log_start;
    } else if (auto moved = moved_by(policy, answer.error())) {
      start.offset = *moved;
      start.high_watermark = offset_fact(answer.error(), "high_watermark").value_or(*moved);
      start.log_start = offset_fact(answer.error(), "log_start").value_or(*moved);
      start.reset = true;
    } else {
      service::Refusal refusal = answer.error();
      refusal.facts.push_back({"partition", fmt::format("{}", start.partition.value())});
      co_return std::unexpected{std::move(refusal)};
    }
    out.push_back(start);
  }
  co_return out;
}

void Subscription::start(const std::vector<Start>& starts) {
  readers_.reserve(starts.size());
  for (const Start& start : starts) readers_.push_back(std::make_unique<Reader>(service_, start));
  // A loop may run into the stream's end at once, so the readers are complete before the first one starts.
  for (std::size_t i = 0; i < readers_.size(); ++i) scope_.spawn(read(shared_from_this(), readers_[i].get()));
}

void Subscription::grant(std::uint64_t records, std::uint64_t bytes) {
  options_.credit.grant(records, bytes);
  if (options_.credit.may_send()) wake_.notify_all();
}

void Subscription::room() { wake_.notify_all(); }

void Subscription::stop() {
  if (std::exchange(stopped_, true)) return;
  for (auto& reader : readers_) reader->fetcher.cancel();
  wire_.ask_no_more();  // other streams of the connection ask again by themselves
  wake_.notify_all();
}

Task<void> Subscription::read(std::shared_ptr<Subscription> self, Reader* reader) {
  while (!self->stopped_) {
    if (reader->until && reader->next >= *reader->until && !reader->finished) {
      reader->finished = true;
      self->send(*reader, reader->next, 0, {}, false);
    }
    if (reader->paused || reader->finished || !self->may_send()) {
      co_await self->wake_.wait();
      continue;
    }
    std::uint64_t share = self->options_.credit.bytes_left() / self->readers_.size();
    service::FetchRequest request{.topic = self->options_.topic->id, .partition = reader->partition, .from = reader->next};
    request.bytes_max = std::min(self->wire_.share(), std::clamp(share, kFetchBytesMin, kFetchBytes));
    request.records_max = self->options_.credit.records_left();
    // The first answer tells at once where the end is; after that there is time.
    request.wait_until = reader->told_end ? self->runtime_.clock.now() + kFetchWait : self->runtime_.clock.now();
    std::uint64_t moves = reader->moves;
    flow::Reservation place;
    if (!reader->told_end) {
      auto taken = co_await self->catching_up_.acquire(self->runtime_.executor, 1);
      if (taken) {
        place = *std::move(taken);
      } else {  // too many wait already
        io::WaitUntil later{self->wake_, self->runtime_, self->runtime_.clock.now() + kMemoryPatience};
        (void)co_await later;
      }
      if (!taken || self->stopped_ || moves != reader->moves || reader->paused || !self->may_send()) continue;
    }
    Answer<service::FetchReply> reply = co_await reader->fetcher.fetch(std::move(request));
    if (self->stopped_) break;
    if (!reply && reply.error().code == Errc::cancelled) {  // moved, paused or resumed meanwhile
      reader->fetcher.reset();
      continue;
    }
    if (moves != reader->moves || reader->paused) continue;
    if (!reply) {
      if (!self->handle(*reader, reply.error())) break;
      continue;
    }
    cut_to(*reply, std::max(self->wire_.share(), kFetchBytesMin));  // others may have taken memory during the fetch
    auto memory = self->wire_.take_memory(reply->bytes);
    if (!memory) {
      place = {};
      // Memory for replies is used up: what was read is dropped, and read again when there is some.
      reply = Answer<service::FetchReply>{};
      io::WaitUntil room{self->wake_, self->runtime_, self->runtime_.clock.now() + kMemoryPatience};
      (void)co_await room;
      continue;
    }
    self->deliver(*reader, *reply);
    self->wire_.hold(*std::move(memory));
    co_await yield_to(self->runtime_.executor);  // other partitions and connections have their turn
  }
}

void Subscription::deliver(Reader& reader, const service::FetchReply& reply) {
  reader.high_watermark = reply.high_watermark;
  if (reply.batches.empty()) {
    reader.next = std::max(reader.next, reply.next);
    if (reply.reached_end() && reader.told_end != reply.high_watermark) send(reader, reader.next, 0, {}, true);
    return;
  }
  std::size_t i = 0;
  while (i < reply.batches.size() && may_send()) {
    // One frame: what fits into the credit, up to about kFetchBytes.
    batches_.clear();
    Offset first = reader.next;
    std::uint64_t records = 0, bytes = 0;
    bool past_until = false;
    for (; i < reply.batches.size() && options_.credit.may_send() && bytes < kFetchBytes; ++i) {
      auto header = read_batch_header(reply.batches[i].bytes(), limits::kMessageBytesCeiling);
      if (!header) return end_with(reader, {Errc::corrupt, header.error().detail});
      if (reader.until && header->base_offset >= *reader.until) {
        past_until = true;
        break;
      }
      Offset from = std::max(header->base_offset, reader.next);
      std::uint64_t count = static_cast<std::uint64_t>(std::max<std::int64_t>(header->next_offset() - from, 0));
      count = std::min(count, static_cast<std::uint64_t>(std::max(header->record_count, 0)));
      records += count;
      bytes += reply.batches[i].length;
      options_.credit.spend(count, reply.batches[i].length);
      reader.next = std::max(reader.next, header->next_offset());
      batches_.push_back(reply.batches[i]);
    }
    if (past_until) reader.next = std::max(reader.next, *reader.until);  // a gap may lie before it
    if (i == reply.batches.size()) reader.next = std::max(reader.next, reply.next);
    bool reached = i == reply.batches.size() && reader.next >= reply.high_watermark;
    if (reader.until && reader.next >= *reader.until) reader.finished = true;
    send(reader, first, records, batches_, reached);
    batches_.clear();  // what was sent is the outbox's to keep, for as long as it takes
    if (reader.finished) return;
  }
}

void Subscription::send(Reader& reader, Offset first, std::uint64_t records, std::span<const Slice> batches, bool reached_end) {
  proto::Records out;
  out.set_partition(reader.partition.value());
  out.set_first_offset(first.value());
  out.set_high_watermark(reader.high_watermark.value());
  out.set_records(static_cast<std::uint32_t>(records));
  out.set_reached_end(reached_end);
  out.set_reset(std::exchange(reader.reset, false));
  out.set_finished(reader.finished);
  out.set_seek_count(seek_count_);
  reader.told_end.reset();
  if (reached_end) reader.told_end = reader.high_watermark;
  wire_.send(proto::FrameType::records, options_.id, out, batches);
}

bool Subscription::handle(Reader& reader, const service::Refusal& refusal) {
  if (auto moved = moved_by(options_.out_of_range, refusal)) {
    reader.next = *moved;
    reader.reset = true;
    reader.told_end.reset();
    reader.high_watermark = offset_fact(refusal, "high_watermark").value_or(*moved);
    send(reader, reader.next, 0, {}, false);
    return true;
  }
  end_with(reader, refusal);
  return false;
}

void Subscription::end_with(Reader& reader, service::Refusal refusal) {
  refusal.facts.push_back({"partition", fmt::format("{}", reader.partition.value())});
  refusal.facts.push_back({"next_offset", fmt::format("{}", reader.next.value())});
  wire_.send_error(options_.id, refusal);
  stop();
}

Subscription::Reader* Subscription::find(PartitionIndex partition) {
  auto at = std::ranges::find_if(readers_, [&](const auto& reader) { return reader->partition == partition; });
  return at == readers_.end() ? nullptr : at->get();
}

Task<Answer<proto::SeekReply>> Subscription::seek(proto::SeekRequest request) {
  auto self = shared_from_this();
  while (seeking_ && !stopped_) co_await wake_.wait();  // seeks of one stream happen one after the other
  if (stopped_) co_return refuse(Errc::closed, "the stream has ended");
  for (const auto* list : {&request.pause(), &request.resume()}) {
    for (std::int32_t index : *list) {
      if (!find(PartitionIndex{index})) co_return refuse(Errc::no_such_partition, fmt::format("partition {} is not part of the stream", index));
    }
  }
  for (const proto::SubscribePartition& partition : request.partitions()) {
    if (!find(PartitionIndex{partition.partition()}))
      co_return refuse(Errc::no_such_partition, fmt::format("partition {} is not part of the stream", partition.partition()));
  }
  std::vector<Start> starts;
  if (request.partitions_size() > 0) {
    seeking_ = true;
    std::vector<proto::SubscribePartition> partitions{request.partitions().begin(), request.partitions().end()};
    auto resolved = co_await resolve(service_, options_.topic->name, std::move(partitions), options_.out_of_range);
    seeking_ = false;
    wake_.notify_all();
    if (stopped_) co_return refuse(Errc::closed, "the stream has ended");
    if (!resolved) co_return std::unexpected{std::move(resolved).error()};
    starts = *std::move(resolved);
    ++seek_count_;
  }
  proto::SeekReply out;
  out.set_seek_count(seek_count_);
  for (const Start& start : starts) {
    Reader& reader = *find(start.partition);
    reader.next = start.offset;
    reader.until = start.until;
    reader.high_watermark = start.high_watermark;
    reader.reset = start.reset;
    reader.finished = false;
    reader.told_end.reset();
    ++reader.moves;
    reader.fetcher.cancel();
    proto::SubscribedPartition& to = *out.add_partitions();
    to.set_partition(start.partition.value());
    to.set_offset(start.offset.value());
    to.set_high_watermark(start.high_watermark.value());
    to.set_log_start(start.log_start.value());
  }
  for (std::int32_t index : request.pause()) {
    find(PartitionIndex{index})->paused = true;
    find(PartitionIndex{index})->fetcher.cancel();
  }
  for (std::int32_t index : request.resume()) find(PartitionIndex{index})->paused = false;
  wake_.notify_all();
  co_return out;
}

}  // namespace tailrace::broker::native
