#include "service/stream_partition.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/planted.h"
#include "io/wait.h"
#include "service/stream_batch.h"

namespace tailrace::broker::service {
namespace {

constexpr std::size_t kFillBytes = 1 * limits::kMiB;
/// A head that was looked up may leave the warm ones before its append is judged, if the pool is that small for what goes on.
constexpr int kLookupsMax = 8;

Refusal unknown_outcome(Error error) {
  Refusal why = from_log(std::move(error));
  if (why.code == Errc::shutting_down) return {Errc::outcome_unknown, "the broker stopped before the append was known to be durable"};
  if (why.code == Errc::not_leader) return {Errc::outcome_unknown, "leadership was lost before the append was known to be committed"};
  return why;
}

Refusal wrong_version(std::string_view stream, const stream::Head& head) {
  std::string detail = head.exists() ? fmt::format("stream {} is at version {}", stream, head.last) : fmt::format("stream {} has no events", stream);
  return {Errc::wrong_version, std::move(detail), {{"actual_version", fmt::format("{}", head.last)}, {"actual_time_ms", fmt::format("{}", head.time_ms)}}};
}

}  // namespace

StreamPartition::StreamPartition(ShardCore& core, PartitionSlot& slot, std::unique_ptr<stream::StreamIndex> index)
    : core_{core}, slot_{slot}, index_{std::move(index)}, indexed_{core.runtime.executor} {}
StreamPartition::~StreamPartition() = default;

Answer<void> StreamPartition::admit() const {
  if (core_.stopping) return refuse(Errc::shutting_down);
  if (slot_.removing) return refuse(Errc::no_such_topic, "it was deleted");
  return {};
}

/// A lone voter's term begins with its first append; nobody else appended meanwhile.
bool StreamPartition::current() const { return ledger_ && (slot_.replicated->alone() || term_ == slot_.log->term()); }

Refusal StreamPartition::index_refusal(Error error) {
  if (error.code == Errc::corrupt) {
    index_bad_ = true;
    ledger_.reset();
    log_warn("streams.index_damaged", "topic {} partition {}: {}; it is filled anew", slot_.topic->name, slot_.id.index.value(), error.detail);
    return {Errc::no_credit, "the index of streams is being made anew"};
  }
  return from_log(std::move(error));
}

// ---- what is known of the log -------------------------------------------------------------------------------------------------

Task<Answer<void>> StreamPartition::prepare() {
  if (auto fine = admit(); !fine) co_return fine;
  if (!slot_.log) {
    if (auto opened = co_await core_.open(slot_); !opened) co_return opened;
  }
  if (!slot_.replicated->leads() || !slot_.replicated->serving()) co_return std::unexpected(Refusal{slot_.replicated->not_leader()});
  if (current()) co_return Answer<void>{};
  co_return co_await fill();
}

Task<Answer<StreamPartition::LedgerPointer>> StreamPartition::ready() {
  if (auto fine = admit(); !fine) co_return std::unexpected(std::move(fine).error());
  if (slot_.log && current() && slot_.replicated->serving()) co_return ledger_;
  DoorTicket ticket{slot_.door};
  while (!ticket.my_turn()) co_await ticket.moved();
  if (auto fine = co_await prepare(); !fine) co_return std::unexpected(std::move(fine).error());
  co_return ledger_;
}

Task<Answer<void>> StreamPartition::fill() {
  ledger_.reset();
  while (indexing_) co_await indexed_.wait();
  if (auto leads = co_await slot_.replicated->confirm_leadership(); !leads) co_return std::unexpected(from_log(std::move(leads).error()));
  LeaderEpoch term = slot_.log->term();
  Offset end = slot_.log->log_end();
  if (auto durable = co_await slot_.replicated->committed(end); !durable) co_return std::unexpected(from_log(std::move(durable).error()));
  Result<LedgerPointer> made;
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (index_bad_) {
      if (auto cleared = co_await index_->clear(); !cleared) co_return std::unexpected(from_log(std::move(cleared).error()));
      index_bad_ = false;
    }
    made = co_await filled(end);
    if (made || made.error().code != Errc::invalid_record) break;
    index_bad_ = true;
    log_warn("streams.index_rebuilt", "topic {} partition {}: {}", slot_.topic->name, slot_.id.index.value(), made.error().detail);
  }
  if (!made) co_return std::unexpected(from_log(std::move(made).error()));
  if (auto fine = admit(); !fine) co_return fine;
  if (!slot_.replicated->leads() || slot_.log->term() != term) co_return std::unexpected(Refusal{slot_.replicated->not_leader()});
  ledger_ = *std::move(made);
  term_ = term;
  kick();
  co_return Answer<void>{};
}

/// invalid_record: the index is not of this log.
Task<Result<StreamPartition::LedgerPointer>> StreamPartition::filled(Offset end) {
  auto reached = co_await index_->reached();
  if (!reached && reached.error().code == Errc::corrupt) co_return fail(Errc::invalid_record, std::move(reached).error().detail);
  if (!reached) co_return std::unexpected(std::move(reached).error());
  log::PartitionPtr log = slot_.log;
  Offset at = *reached;
  if (at > end) co_return fail(Errc::invalid_record, fmt::format("the index has got to {}, the log ends at {}", at.value(), end.value()));
  if (at < log->log_start()) {
    if (at != Offset{0}) co_return fail(Errc::invalid_record, fmt::format("the index has got to {}, the log begins at {}", at.value(), log->log_start().value()));
    at = log->log_start();
  }
  auto ledger = std::make_shared<stream::Ledger>(at, core_.warm_heads, ++core_.ledgers_made);
  while (at < end) {
    if (core_.stopping) co_return fail(Errc::closed, "the broker stops");
    TAILRACE_CO_TRY(log::ReadResult read, co_await log->read(at, {.bytes_max = kFillBytes}));
    if (read.batches.empty() && read.next <= at) co_return fail(Errc::corrupt, fmt::format("offset {} cannot be read", at.value()));
    for (const Slice& batch : read.batches) {
      TAILRACE_CO_TRY(BatchHeader header, read_batch_header(batch.bytes(), batch.length));
      if (header.base_offset < at) co_return fail(Errc::invalid_record, fmt::format("the index has got to {}, which is inside a batch", at.value()));
      TAILRACE_CO_TRY(std::optional<stream::Entry> entry, entry_of(batch.bytes()));
      at = header.next_offset();
      if (!entry) {
        ledger->passed(at);
        continue;
      }
      if (!ledger->head(entry->stream)) {
        ledger->begin_lookup(entry->stream);
        auto head = co_await index_->head(entry->stream);
        if (!head) {
          ledger->abandon_lookup(entry->stream);
          co_return fail(head.error().code == Errc::corrupt ? Errc::invalid_record : head.error().code, std::move(head).error().detail);
        }
        (void)ledger->end_lookup(entry->stream, *head);
      }
      ledger->appended(*std::move(entry));
      while (ledger->full() || ledger->size() >= limits::kIndexBatchMax) TAILRACE_CO_TRY_VOID(co_await store(ledger, end));
    }
    at = std::max(at, read.next);
    co_await yield_to(core_.runtime.executor);
  }
  ledger->passed(end);
  co_return ledger;
}

/// The oldest committed entries go into the index. Answers how far it is.
Task<Result<Offset>> StreamPartition::store(LedgerPointer ledger, Offset committed) {
  std::vector<stream::Ledger::Update> updates = ledger->committed(committed, limits::kIndexBatchMax);
  if (updates.empty()) co_return ledger->begin();
  Offset reached = updates.back().entry.next;
  TAILRACE_CO_TRY_VOID(co_await index_->apply(std::move(updates), reached));
  ledger->indexed(reached);
  co_return reached;
}

void StreamPartition::kick() {
  if (indexing_ || !ledger_ || !slot_.log || core_.stopping || slot_.removing) return;
  if (ledger_->committed(slot_.log->high_watermark(), 1).empty()) return;
  indexing_ = true;
  core_.background.spawn(index_task());
}

Task<void> StreamPartition::index_task() {
  SlotUse use{std::shared_ptr<PartitionSlot>{std::shared_ptr<void>{}, &slot_}};  // whoever drops the slot waits for its users
  LedgerPointer ledger = ledger_;
  while (ledger == ledger_ && !core_.stopping && !slot_.removing) {
    std::size_t before = ledger->size();
    auto stored = co_await store(ledger, slot_.log->high_watermark());
    if (!stored) {
      (void)index_refusal(std::move(stored).error());  // tried again with the next append
      break;
    }
    if (ledger->size() == before) break;
  }
  indexing_ = false;
  indexed_.notify_all();
}

Task<void> StreamPartition::forget() {
  ledger_.reset();
  if (auto cleared = co_await index_->clear(); !cleared) log_warn("streams.not_forgotten", "topic {}: {}", slot_.topic->name, cleared.error().detail);
}

Task<Answer<void>> StreamPartition::look_up(LedgerPointer ledger, const std::string& stream) {
  if (auto at = cold_.find(stream); at != cold_.end()) {
    std::shared_ptr<Cold> cold = at->second;
    if (cold->waiting >= limits::kColdHeadWaitersMax) co_return refuse(Errc::no_credit, "appends wait for this stream to be looked up");
    ++cold->waiting;
    while (!cold->done) co_await cold->changed.wait();
    if (cold->error) co_return std::unexpected(Refusal{*cold->error});
    co_return Answer<void>{};
  }
  auto cold = std::make_shared<Cold>(core_.runtime.executor);
  cold_.emplace(stream, cold);
  ledger->begin_lookup(stream);
  auto head = co_await index_->head(stream);
  Answer<void> answer;
  if (head) {
    (void)ledger->end_lookup(stream, *head);
  } else {
    ledger->abandon_lookup(stream);
    answer = std::unexpected(index_refusal(std::move(head).error()));
    cold->error = answer.error();
  }
  cold_.erase(stream);
  cold->done = true;
  cold->changed.notify_all();
  co_return answer;
}

// ---- appending ----------------------------------------------------------------------------------------------------------------

template <class Make>
Task<Answer<StreamPartition::Judged>> StreamPartition::judge(std::string stream, stream::Expected expected, std::int32_t count, std::optional<Instant> deadline, Make make) {
  Instant give_up = core_.runtime.clock.now() + limits::kAppendWaitMax;
  if (deadline) give_up = std::min(give_up, *deadline);
  for (int lookups = 0;; ++lookups) {
    LedgerPointer ledger;
    {
      DoorTicket ticket{slot_.door};
      while (!ticket.my_turn()) co_await ticket.moved();
      for (;;) {
        if (auto fine = co_await prepare(); !fine) co_return std::unexpected(std::move(fine).error());
        if (deadline && core_.runtime.clock.now() >= *deadline) co_return refuse(Errc::timeout, "the deadline passed before the batch was appended");
        // From here to the append nothing suspends.
        ledger = ledger_;
        Judged out{.judgement = ledger->judge(stream, expected, count)};
        if (out.judgement.kind == stream::Judgement::Kind::cold) break;
        if (out.judgement.kind != stream::Judgement::Kind::append) co_return out;
        WallTime now = core_.runtime.clock.wall();
        std::optional<std::pair<Slice, BatchHeader>> batch;
        TAILRACE_CO_TRY(batch, make(out.judgement, now));
        if (!batch) co_return out;  // nothing is to be appended
        auto done = slot_.replicated->append(batch->first, batch->second, now);
        if (done) {
          out.appended = *done;
          TAILRACE_CO_TRY(std::optional<stream::Entry> entry, entry_of(batch->first.bytes()));
          TAILRACE_CHECK(entry.has_value(), "what is appended here is of a stream");
          term_ = slot_.log->term();  // a lone voter's begins with its first append
          ledger->appended(*std::move(entry));
          co_return out;
        }
        if (done.error().code != Errc::no_credit || core_.runtime.clock.now() >= give_up) co_return std::unexpected(from_log(std::move(done).error()));
        bool room = co_await io::WaitUntil{core_.log->pressure(), core_.runtime, give_up};
        (void)room;  // tried once more either way
      }
    }
    if (lookups == kLookupsMax) co_return refuse(Errc::no_credit, "heads of streams leave the memory for them sooner than they are used");
    if (auto found = co_await look_up(std::move(ledger), stream); !found) co_return std::unexpected(std::move(found).error());
  }
}

Task<Answer<void>> StreamPartition::rests_on(Offset end) {
  if (auto durable = co_await slot_.replicated->committed(end); !durable) co_return std::unexpected(from_log(std::move(durable).error()));
  if (auto leads = co_await slot_.replicated->confirm_leadership(); !leads) co_return std::unexpected(from_log(std::move(leads).error()));
  co_return Answer<void>{};
}

Task<Answer<StreamAppendReply>> StreamPartition::append(StreamAppendRequest& request, const std::vector<std::string>& ids) {
  auto make = [&](const stream::Judgement&, WallTime now) -> Answer<std::optional<std::pair<Slice, BatchHeader>>> {
    BatchHeader stored = request.header;
    if (slot_.topic->config.timestamp_type == TimestampType::log_append_time) {
      stamp_log_append_time(request.batch.mutable_bytes(), now);
      auto stamped = read_batch_header(request.batch.bytes(), request.batch.length);
      if (!stamped) return std::unexpected(Refusal{std::move(stamped).error()});
      stored = *stamped;
    }
    return std::pair{request.batch, stored};
  };
  auto count = static_cast<std::int32_t>(ids.size());
  auto judged = co_await judge(request.stream, request.expected, count, request.deadline, std::move(make));
  if (!judged) co_return std::unexpected(std::move(judged).error());
  const stream::Judgement& judgement = judged->judgement;
  StreamAppendReply reply{.first = judgement.first, .last = judgement.first + count - 1, .partition = slot_.id.index};
  switch (judgement.kind) {
    case stream::Judgement::Kind::append:
      if (auto durable = co_await slot_.replicated->committed(judged->appended.next_offset); !durable) co_return std::unexpected(unknown_outcome(std::move(durable).error()));
      kick();
      reply.offset = judged->appended.base_offset;
      co_return reply;
    case stream::Judgement::Kind::compare: {
      if (auto told = co_await rests_on(judgement.rests_on); !told) co_return std::unexpected(std::move(told).error());
      auto same = co_await stored_before(request.stream, judgement.first, ids, reply.offset);
      if (!same) co_return std::unexpected(std::move(same).error());
      if (!*same) co_return std::unexpected(wrong_version(request.stream, judgement.head));
      reply.duplicate = true;
      co_return reply;
    }
    case stream::Judgement::Kind::wrong_version:
      if (auto told = co_await rests_on(judgement.rests_on); !told) co_return std::unexpected(std::move(told).error());
      co_return std::unexpected(wrong_version(request.stream, judgement.head));
    case stream::Judgement::Kind::no_credit:
      kick();
      co_return refuse(Errc::no_credit, "the index of streams is behind");
    case stream::Judgement::Kind::cold: break;
  }
  co_return refuse(Errc::internal, "a judgement without an answer");
}

Task<Answer<bool>> StreamPartition::stored_before(const std::string& stream, stream::Version first, const std::vector<std::string>& ids, Offset& at) {
  auto where = co_await places(stream, first, false, ids.size());
  if (!where) co_return std::unexpected(std::move(where).error());
  std::size_t compared = 0;
  for (const stream::Place& place : *where) {
    auto batch = co_await batch_at(place.offset);
    if (!batch) co_return std::unexpected(std::move(batch).error());
    auto stored = event_ids(batch->bytes());
    if (!stored) co_return std::unexpected(Refusal{std::move(stored).error()});
    auto skip = static_cast<std::size_t>(std::max<stream::Version>(first - place.first, 0));
    if (compared == 0) at = place.offset + static_cast<std::int64_t>(skip);
    for (std::size_t i = skip; i < stored->size() && compared < ids.size(); ++i, ++compared) {
      if ((*stored)[i] != ids[compared]) co_return false;
      if (planted(PlantedBug::stream_retry_first_id)) co_return true;
    }
    if (compared == ids.size()) co_return true;
  }
  co_return false;
}

Task<Answer<stream::Head>> StreamPartition::truncate(const StreamTruncateRequest& request) {
  auto make = [&](const stream::Judgement& judgement, WallTime now) -> Answer<std::optional<std::pair<Slice, BatchHeader>>> {
    stream::Version before = request.before.value_or(judgement.head.last + 1);
    if (!judgement.head.exists() || before > judgement.head.last + 1 || before <= judgement.head.first) return std::nullopt;
    auto batch = truncation(request.stream, before, now);
    if (!batch) return std::unexpected(Refusal{std::move(batch).error()});
    auto header = read_batch_header(batch->bytes(), batch->length);
    if (!header) return std::unexpected(Refusal{std::move(header).error()});
    return std::pair{*std::move(batch), *header};
  };
  auto judged = co_await judge(request.stream, {.kind = stream::Expected::Kind::any}, 0, std::nullopt, std::move(make));
  if (!judged) co_return std::unexpected(std::move(judged).error());
  if (judged->judgement.kind == stream::Judgement::Kind::no_credit) {
    kick();
    co_return refuse(Errc::no_credit, "the index of streams is behind");
  }
  stream::Head head = judged->judgement.head;
  if (judged->appended.next_offset == Offset{}) {
    if (auto told = co_await rests_on(judged->judgement.rests_on); !told) co_return std::unexpected(std::move(told).error());
    if (!head.exists()) co_return refuse(Errc::no_such_stream, request.stream);
    if (request.before && *request.before > head.last + 1) {
      co_return refuse(Errc::invalid_argument, fmt::format("before {}: the last version of {} is {}", *request.before, request.stream, head.last));
    }
    co_return head;  // all that is hidden already
  }
  if (auto durable = co_await slot_.replicated->committed(judged->appended.next_offset); !durable) co_return std::unexpected(unknown_outcome(std::move(durable).error()));
  kick();
  head.first = request.before.value_or(head.last + 1);
  co_return head;
}

// ---- reading ------------------------------------------------------------------------------------------------------------------

Task<Answer<stream::Head>> StreamPartition::committed_head(const std::string& stream) {
  auto ledger = co_await ready();
  if (!ledger) co_return std::unexpected(std::move(ledger).error());
  if (auto leads = co_await slot_.replicated->confirm_leadership(); !leads) co_return std::unexpected(from_log(std::move(leads).error()));
  std::vector<stream::Ledger::Update> recent = (*ledger)->of(stream, slot_.log->high_watermark());
  if (!recent.empty()) co_return recent.back().head;
  auto head = co_await index_->head(stream);
  if (!head) co_return std::unexpected(index_refusal(std::move(head).error()));
  co_return *head;
}

Task<Answer<std::vector<stream::Place>>> StreamPartition::places(const std::string& stream, stream::Version from, bool backwards, std::size_t most) {
  auto ledger = co_await ready();
  if (!ledger) co_return std::unexpected(std::move(ledger).error());
  // What leaves the ledger is in the index by then: looked at first, nothing falls between.
  std::vector<stream::Place> recent;
  for (const stream::Ledger::Update& update : (*ledger)->of(stream, slot_.log->high_watermark())) {
    if (update.entry.kind == stream::Entry::Kind::events) recent.push_back({update.first_version, update.entry.count, update.entry.base});
  }
  std::optional<stream::Version> recent_from;
  if (!recent.empty()) recent_from = recent.front().first;
  std::vector<stream::Place> out;
  bool index_has_some = backwards || !recent_from || from < *recent_from;
  std::vector<stream::Place> indexed;
  if (index_has_some) {
    auto found = co_await index_->places(stream, from, backwards, most);
    if (!found) co_return std::unexpected(index_refusal(std::move(found).error()));
    indexed = *std::move(found);
    std::erase_if(indexed, [&](const stream::Place& place) { return recent_from && place.first >= *recent_from; });
  }
  if (backwards) {
    for (auto at = recent.rbegin(); at != recent.rend(); ++at) {
      if (at->first <= from) out.push_back(*at);
    }
    out.insert(out.end(), indexed.begin(), indexed.end());
  } else {
    out = std::move(indexed);
    for (const stream::Place& place : recent) {
      if (place.first + place.count > from) out.push_back(place);
    }
  }
  if (out.size() > most) out.resize(most);
  co_return out;
}

Task<Answer<Slice>> StreamPartition::batch_at(Offset offset) {
  auto read = co_await slot_.log->read(offset, {.bytes_max = 1, .batches_max = 1});
  if (!read) co_return std::unexpected(from_log(std::move(read).error()));
  if (!read->batches.empty()) {
    auto header = read_batch_header(read->batches.front().bytes(), read->batches.front().length);
    if (header && header->base_offset == offset) co_return read->batches.front();
  }
  co_return std::unexpected(index_refusal({Errc::corrupt, fmt::format("no batch begins at offset {}", offset.value())}));
}

Task<Answer<StreamReadReply>> StreamPartition::read(const StreamReadRequest& request) {
  auto head = co_await committed_head(request.stream);
  if (!head) co_return std::unexpected(std::move(head).error());
  if (!head->exists()) co_return refuse(Errc::no_such_stream, request.stream);
  StreamReadReply reply{.head = *head};
  if (!request.backwards && request.from > head->last + 1) {
    co_return refuse(Errc::invalid_argument, fmt::format("version {}: the last one of {} is {}", request.from, request.stream, head->last),
                     {{"actual_version", fmt::format("{}", head->last)}});
  }
  stream::Version from = request.backwards ? (request.from < 0 ? head->last : std::min(request.from, head->last)) : std::max(request.from, head->first);
  if (from > head->last || from < head->first) {
    reply.end = true;
    co_return reply;
  }
  std::size_t events_max = std::clamp<std::size_t>(request.events_max, 1, limits::kStreamReadEventsMax);
  std::uint64_t bytes_max = request.bytes_max == 0 ? limits::kStreamReadBytesMax : std::min<std::uint64_t>(request.bytes_max, limits::kStreamReadBytesMax);
  auto where = co_await places(request.stream, from, request.backwards, events_max);
  if (!where) co_return std::unexpected(std::move(where).error());
  std::size_t events = 0;
  std::uint64_t bytes = 0;
  for (const stream::Place& place : *where) {
    stream::Version last = place.first + place.count - 1;
    if (request.backwards ? last < head->first : place.first > head->last) break;
    if (events >= events_max || (bytes > 0 && bytes >= bytes_max)) break;
    auto batch = co_await batch_at(place.offset);
    if (!batch) co_return std::unexpected(std::move(batch).error());
    if (bytes > 0 && bytes + batch->length > bytes_max) break;
    events += static_cast<std::size_t>(request.backwards ? std::min(last, from) - place.first + 1 : last - std::max(place.first, from) + 1);
    bytes += batch->length;
    reply.end = request.backwards ? place.first <= head->first : last >= head->last;
    reply.batches.push_back({place.first, *std::move(batch)});
  }
  co_return reply;
}

Task<Answer<stream::Head>> StreamPartition::describe(const std::string& stream) {
  auto head = co_await committed_head(stream);
  if (head && !head->exists()) co_return refuse(Errc::no_such_stream, stream);
  co_return head;
}

Task<Answer<std::vector<stream::Listed>>> StreamPartition::list(const StreamListRequest& request) {
  auto ledger = co_await ready();
  if (!ledger) co_return std::unexpected(std::move(ledger).error());
  std::vector<stream::Ledger::Update> recent = (*ledger)->committed(slot_.log->high_watermark(), limits::kLedgerEntriesMax);
  auto listed = co_await index_->list(request.prefix, request.after, request.most);
  if (!listed) co_return std::unexpected(index_refusal(std::move(listed).error()));
  std::map<std::string, stream::Head> all;
  for (stream::Listed& one : *listed) all[std::move(one.stream)] = one.head;
  for (const stream::Ledger::Update& update : recent) {  // the newest comes last
    const std::string& stream = update.entry.stream;
    if (stream.starts_with(request.prefix) && (request.after.empty() || stream > request.after)) all[stream] = update.head;
  }
  std::vector<stream::Listed> out;
  for (auto& [stream, head] : all) {
    if (out.size() == request.most) break;
    if (head.exists()) out.push_back({stream, head});
  }
  co_return out;
}

}  // namespace tailrace::broker::service
