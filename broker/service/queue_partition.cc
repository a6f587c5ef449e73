#include "service/queue_partition.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/planted.h"
#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "codec/murmur2.h"
#include "io/wait.h"
#include "service/controller.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
namespace {

constexpr std::size_t kAheadBytes = 1 * limits::kMiB;         // of batches, read before they are asked for; one larger batch alone
constexpr std::uint64_t kRewriteAfterBytes = 1 * limits::kMiB;  // of events, before the log is written anew
constexpr std::chrono::seconds kReadWait{30};                  // of one fetch at the end of the log
constexpr std::chrono::seconds kMoveAgain{1};                  // after a dead letter could not be moved
constexpr std::chrono::seconds kRetireWait{10};

using queue::RecordKey;

std::vector<std::byte> key_of(RecordKey::Kind kind, const std::string& group) { return encode(RecordKey{kind, group}); }

/// 0 stands for no key. Two keys that have the same by chance only wait for each other.
queue::KeyHash hash_of(const std::optional<Bytes>& key) { return key ? 1 + queue::KeyHash{static_cast<std::uint32_t>(codec::murmur2(*key))} : 0; }

std::string_view name_of(queue::Reason reason) {
  switch (reason) {
    case queue::Reason::rejected: return "rejected";
    case queue::Reason::attempts: return "attempts";
    case queue::Reason::retention: return "retention";
  }
  return "";
}

}  // namespace

QueuePartition::QueuePartition(ShardCore& core, PartitionId state, TopicId topic) : core_{core}, log_{core, state}, topic_{topic}, index_{state.index} {}

queue::TimeMs QueuePartition::now_ms() const { return core_.runtime.clock.wall().time_since_epoch().count(); }
bool QueuePartition::ended() const { return core_.stopping || core_.waits_end || !core_.catalog || failed_; }

// ---- what is stored -----------------------------------------------------------------------------------------------------

Task<Answer<void>> QueuePartition::load() {
  if (auto opened = co_await log_.open(); !opened) co_return opened;
  StateLog::Visit visit = [this](const codec::RecordView& record) { return take(record); };
  if (auto read = co_await log_.replay(visit); !read) co_return read;
  for (auto& [group, entry] : groups_) {
    entry->ahead_end = entry->queue->next();
    for (const auto& [offset, open] : entry->letters.open) {
      if (!planted(PlantedBug::queue_letter_not_resent)) entry->intents.insert(offset);
    }
    happened(group, entry);
  }
  co_return Answer<void>{};
}

Result<void> QueuePartition::take(const codec::RecordView& record) {
  TAILRACE_TRY(RecordKey key, queue::decode_key(record.key.value_or(Bytes{})));
  Bytes value = record.value.value_or(Bytes{});
  appended_bytes_ += value.size();
  if (key.kind == RecordKey::Kind::settings) {
    if (!record.value) {
      groups_.erase(key.group);
      return {};
    }
    TAILRACE_TRY(queue::SettingsRecord settings, queue::decode_settings(value));
    auto entry = std::make_shared<Entry>(core_.runtime.executor);
    entry->settings = {settings.options, settings.dead_letter_topic};
    entry->begin = settings.begin;
    entry->queue.emplace(settings.options, settings.begin);
    groups_[key.group] = std::move(entry);
    return {};
  }
  auto found = groups_.find(key.group);
  // Of a group that was deleted, or that a log which was written anew has a snapshot of further on.
  if (found == groups_.end()) return {};
  Entry& entry = *found->second;
  if (key.kind == RecordKey::Kind::snapshot) return queue::decode_snapshot(value, *entry.queue, entry.letters);
  TAILRACE_TRY(queue::EventsRecord events, queue::decode_events(value));
  return queue::apply(events, *entry.queue, entry.letters);
}

void QueuePartition::fail() {
  failed_ = true;
  stop();
}

void QueuePartition::stop() {
  for (auto& [group, entry] : groups_) entry->changed.notify_all();
}

/// Appends in the order of the calls, and answers when it is committed.
Task<Answer<void>> QueuePartition::append(std::vector<StateRecord> records) {
  for (const StateRecord& one : records) appended_bytes_ += one.value ? one.value->size() : 0;
  auto appended = co_await log_.append(std::move(records));
  if (!appended) {
    fail();
    co_return std::unexpected(std::move(appended).error());
  }
  if (planted(PlantedBug::queue_answer_early)) co_return Answer<void>{};
  auto committed = co_await log_.committed(*appended);
  if (!committed) fail();
  co_return committed;
}

/// What the queue has decided: follows it, appends it, and answers when it is committed.
Task<Answer<void>> QueuePartition::store(std::string group, EntryPtr entry, queue::EventsRecord record) {
  queue::follow(record, entry->letters);
  std::vector<StateRecord> records;
  records.push_back({key_of(RecordKey::Kind::events, group), encode(record)});
  auto stored = co_await append(std::move(records));
  rewrite_if_due();
  if (!stored) co_return stored;
  for (const queue::Event& event : record.events) {
    if (const auto* condemned = std::get_if<queue::Condemned>(&event)) entry->intents.insert(condemned->offset);
    if (const auto* buried = std::get_if<queue::Buried>(&event)) entry->intents.erase(buried->offset);
  }
  happened(group, entry);
  co_return stored;
}

void QueuePartition::rewrite_if_due() {
  if (rewriting_ || failed_ || appended_bytes_ < std::max(kRewriteAfterBytes, 2 * state_bytes_)) return;
  rewriting_ = true;
  core_.background.spawn(rewrite(shared_from_this()));
}

/// Settings and state of every group once more, then the log before it goes. A group's events that come between stand behind its snapshot.
Task<void> QueuePartition::rewrite([[maybe_unused]] std::shared_ptr<QueuePartition> self) {
  appended_bytes_ = 0;
  state_bytes_ = 0;
  Offset begin{};
  bool first = true;
  std::vector<std::string> names;
  for (const auto& [group, entry] : groups_) names.push_back(group);
  for (const std::string& group : names) {
    auto found = groups_.find(group);
    if (found == groups_.end()) continue;
    const Entry& entry = *found->second;
    std::vector<StateRecord> records;
    records.push_back({key_of(RecordKey::Kind::settings, group),
                       encode(queue::SettingsRecord{entry.settings.options, entry.settings.dead_letter_topic, entry.begin})});
    records.push_back({key_of(RecordKey::Kind::snapshot, group), queue::encode_snapshot(*entry.queue, entry.letters)});
    state_bytes_ += records.back().value->size();
    if (first) begin = log_.end();
    first = false;
    auto appended = co_await log_.append(std::move(records));
    if (!appended && appended.error().code == Errc::too_large) {
      // Tiny write-ahead logs: the log of events stays long, and is what counts.
      log_warn("queue.rewrite", "the state of group {} does not fit a batch: {}", group, appended.error().detail);
      co_return;
    }
    if (!appended) co_return fail();
  }
  if (auto all = co_await log_.committed(log_.end()); !all) co_return fail();
  if (first) begin = log_.end();
  if (auto cut = co_await log_.cut(begin); !cut) log_warn("queue.rewrite", "the log before {} stays: {}", begin.value(), cut.error().detail);
  rewriting_ = false;
}

// ---- groups -------------------------------------------------------------------------------------------------------------

Answer<QueuePartition::EntryPtr> QueuePartition::known(const std::string& group) const {
  auto found = groups_.find(group);
  if (found == groups_.end()) return refuse(Errc::no_such_group, group);
  return found->second;
}

Task<Answer<OpenedQueue>> QueuePartition::open(OpenQueue request) {
  if (ended()) co_return refuse(Errc::shutting_down);
  OpenedQueue out;
  do out.worker = core_.runtime.random.next();
  while (out.worker == 0);
  if (auto found = groups_.find(request.group); found != groups_.end()) {
    out.settings = found->second->settings;
    co_return out;
  }
  if (auto fine = queue::check(request.settings.options); !fine) co_return std::unexpected(Refusal{std::move(fine).error()});
  if (request.settings.dead_letter_topic.size() > limits::kTopicNameMax) co_return refuse(Errc::invalid_topic_name, "of the dead-letter topic");
  if (groups_.size() >= limits::kQueueGroupsMax) co_return refuse(Errc::too_many, fmt::format("{} queue groups on one topic", groups_.size()));
  auto entry = std::make_shared<Entry>(core_.runtime.executor);
  entry->settings = request.settings;
  entry->begin = request.begin.value_or(Offset{0});
  entry->queue.emplace(request.settings.options, entry->begin);
  entry->ahead_end = entry->begin;
  groups_[request.group] = entry;
  std::vector<StateRecord> records;
  records.push_back({key_of(RecordKey::Kind::settings, request.group),
                     encode(queue::SettingsRecord{request.settings.options, request.settings.dead_letter_topic, entry->begin})});
  if (auto stored = co_await append(std::move(records)); !stored) co_return std::unexpected(std::move(stored).error());
  out.settings = entry->settings;
  co_return out;
}

Task<Answer<void>> QueuePartition::remove(std::string group) {
  auto found = known(group);
  if (!found) co_return std::unexpected(std::move(found).error());
  (*found)->gone = true;
  (*found)->changed.notify_all();
  groups_.erase(group);
  std::vector<StateRecord> records;
  records.push_back({key_of(RecordKey::Kind::settings, group), std::nullopt});
  co_return co_await append(std::move(records));
}

Task<Answer<std::vector<std::string>>> QueuePartition::list() {
  std::vector<std::string> out;
  for (const auto& [group, entry] : groups_) out.push_back(group);
  if (auto all = co_await log_.committed(log_.end()); !all) co_return std::unexpected(std::move(all).error());
  co_return out;
}

Task<Answer<QueueDescription>> QueuePartition::describe(std::string group) {
  auto found = known(group);
  if (!found) co_return std::unexpected(std::move(found).error());
  EntryPtr entry = *std::move(found);
  cluster::TopicPointer topic = core_.catalog ? core_.catalog->find(topic_) : nullptr;
  if (!topic) co_return refuse(Errc::no_such_topic, "it was deleted");
  ShardCore& there = core_.core_of(core_.home({topic_, index_}));
  auto ask = [&there, id = topic_, index = index_] { return there.unread(id, index, Offset{0}); };
  auto unread = co_await core_.port.call_on(there.index, std::move(ask));
  if (!unread) co_return std::unexpected(std::move(unread).error());
  const queue::Queue& queue = *entry->queue;
  QueueDescription out{.group = group, .settings = entry->settings, .next = queue.next(), .high_watermark = unread->high_watermark, .live = queue.live(),
                       .condemned = queue.condemned().size(), .counters = queue.counters(),
                       .standstill = queue.standstill(queue.next() < unread->high_watermark, now_ms())};
  if (auto all = co_await log_.committed(log_.end()); !all) co_return std::unexpected(std::move(all).error());
  co_return out;
}

/// Whatever the queue did: who waits looks again, and dead letters begin to move.
void QueuePartition::happened(const std::string& group, const EntryPtr& entry) {
  entry->changed.notify_all();
  if (entry->moving || entry->intents.empty() || ended()) return;
  entry->moving = true;
  core_.background.spawn(move_dead_letters(shared_from_this(), group, entry));
}

// ---- deliveries ---------------------------------------------------------------------------------------------------------

/// Reads what follows, as long as somebody waits for it and there is room.
Task<void> QueuePartition::read_ahead([[maybe_unused]] std::shared_ptr<QueuePartition> self, std::string group, EntryPtr entry) {
  Fetcher fetcher{*core_.service};
  while (!ended() && !entry->gone && entry->waiting > 0 && entry->ahead_bytes < kAheadBytes) {
    entry->ahead_end = std::max(entry->ahead_end, entry->queue->next());
    FetchRequest request{.topic = topic_, .partition = index_, .from = entry->ahead_end, .bytes_max = kAheadBytes - entry->ahead_bytes,
                         .wait_until = core_.runtime.clock.now() + kReadWait};
    auto read = co_await fetcher.fetch(std::move(request));
    if (ended() || entry->gone) break;
    if (!read && read.error().code == Errc::offset_out_of_range) {
      // Retention took what was never delivered: it is counted, and reading goes on at the start.
      ShardCore& there = core_.core_of(core_.home({topic_, index_}));
      auto ask = [&there, id = topic_, index = index_] { return there.unread(id, index, Offset{0}); };
      auto unread = co_await core_.port.call_on(there.index, std::move(ask));
      if (unread && entry->queue->next() < unread->log_start && !ended() && !entry->gone) {
        queue::Queue::Retired retired = entry->queue->retire(unread->log_start);
        queue::EventsRecord record{.events = std::move(retired.events)};
        entry->ahead.clear();
        entry->ahead_bytes = 0;
        entry->ahead_end = entry->queue->next();
        if (!co_await store(group, entry, std::move(record))) break;
        continue;
      }
    }
    if (!read) {
      entry->unreadable = std::move(read).error();
      entry->changed.notify_all();
      break;
    }
    bool any = false;
    for (const Slice& batch : read->batches) {
      auto reader = codec::BatchReader::open(batch.bytes(), {.check_crc = false});
      if (!reader) continue;  // the log has checked it
      codec::RecordView record;
      bool counted = false;
      while (reader->next(record)) {
        if (record.offset < entry->ahead_end) continue;
        if (!reader->header().is_control()) entry->ahead.push_back({{record.offset, hash_of(record.key)}, batch});
        entry->ahead_bytes += counted ? 0 : batch.length;
        counted = true;
        any = true;
      }
    }
    entry->ahead_end = std::max(entry->ahead_end, read->next);
    if (any) entry->changed.notify_all();
  }
  entry->reading = false;
  entry->changed.notify_all();
}

/// What was delivered, held or passed over since it was read.
void QueuePartition::drop_stale(Entry& entry) {
  while (!entry.ahead.empty() && entry.ahead.front().record.offset < entry.queue->next()) {
    Ahead one = std::move(entry.ahead.front());
    entry.ahead.pop_front();
    bool last = entry.ahead.empty() || entry.ahead.front().batch.bytes().data() != one.batch.bytes().data();
    if (last) entry.ahead_bytes -= std::min<std::size_t>(entry.ahead_bytes, one.batch.length);
  }
}

Task<Answer<Slice>> QueuePartition::read_one(Offset offset) {
  Fetcher fetcher{*core_.service};
  auto read = co_await fetcher.fetch({.topic = topic_, .partition = index_, .from = offset, .bytes_max = 1, .records_max = 1});
  if (!read) co_return std::unexpected(std::move(read).error());
  if (read->batches.empty()) co_return refuse(Errc::corrupt, fmt::format("offset {} is not there", offset.value()));
  co_return read->batches.front();
}

Task<Answer<std::vector<LeasedRecord>>> QueuePartition::lease(LeaseRecords request) {
  if (request.credit == 0 || request.credit > limits::kQueueCreditMax) co_return refuse(Errc::invalid_argument, fmt::format("credit: 1 to {}, not {}", limits::kQueueCreditMax, request.credit));
  auto found = known(request.group);
  if (!found) co_return std::unexpected(std::move(found).error());
  EntryPtr entry = *std::move(found);
  for (;;) {
    if (core_.stopping || core_.waits_end || !core_.catalog) co_return refuse(Errc::shutting_down);
    if (failed_) co_return refuse(Errc::not_leader, "the queue begins anew");
    if (entry->gone) co_return refuse(Errc::no_such_group, request.group);
    queue::Queue& queue = *entry->queue;
    std::vector<queue::Waiting> waiting;
    std::map<Offset, Slice> batches;  // of what may be delivered for the first time
    drop_stale(*entry);
    for (std::size_t i = 0; i < entry->ahead.size() && waiting.size() < request.credit + limits::kQueueCreditMax; ++i) waiting.push_back(entry->ahead[i].record);
    std::vector<queue::Event> events = queue.deliver(request.worker, request.credit, waiting, now_ms());
    if (!events.empty()) {
      queue::EventsRecord record{.events = std::move(events)};
      for (const Ahead& one : entry->ahead) {
        if (one.record.offset >= queue.next()) break;
        batches.emplace(one.record.offset, one.batch);
      }
      drop_stale(*entry);
      std::vector<LeasedRecord> out;
      for (const queue::Event& event : record.events) {
        if (const auto* e = std::get_if<queue::Attempted>(&event)) out.push_back({.offset = e->offset, .attempt = e->attempt, .until = e->until});
      }
      if (auto stored = co_await store(request.group, entry, std::move(record)); !stored) co_return std::unexpected(std::move(stored).error());
      for (LeasedRecord& one : out) {
        if (auto at = batches.find(one.offset); at != batches.end()) {
          one.batch = at->second;
          continue;
        }
        // Delivered before, to somebody else or before a restart. What cannot be read now stays leased, and comes again.
        auto batch = co_await read_one(one.offset);
        if (batch) one.batch = *std::move(batch);
      }
      std::erase_if(out, [](const LeasedRecord& one) { return one.batch.length == 0; });
      if (!out.empty()) co_return out;
      continue;
    }
    if (entry->unreadable) {
      Refusal why = *std::exchange(entry->unreadable, std::nullopt);
      co_return std::unexpected(std::move(why));
    }
    Instant now = core_.runtime.clock.now();
    if (now >= request.wait_until) co_return std::vector<LeasedRecord>{};
    Instant look = request.wait_until;
    if (auto due = queue.due()) look = std::min(look, now + std::chrono::milliseconds{std::max<queue::TimeMs>(*due - now_ms(), 1)});
    ++entry->waiting;
    if (!entry->reading && entry->ahead.empty()) {
      entry->reading = true;
      core_.background.spawn(read_ahead(shared_from_this(), request.group, entry));
    }
    bool notified = co_await io::WaitUntil{entry->changed, core_.runtime, look};
    (void)notified;  // looked at again either way
    --entry->waiting;
  }
}

Task<Answer<std::vector<Result<void>>>> QueuePartition::settle(std::string group, queue::WorkerId worker, std::vector<SettleRecord> records) {
  if (records.size() > limits::kQueueCreditMax) co_return refuse(Errc::too_many, fmt::format("{} settles in one call", records.size()));
  if (ended()) co_return refuse(Errc::shutting_down);
  auto found = known(group);
  if (!found) co_return std::unexpected(std::move(found).error());
  EntryPtr entry = *std::move(found);
  queue::Queue& queue = *entry->queue;
  queue::TimeMs now = now_ms();
  std::vector<Result<void>> answers;
  queue::EventsRecord record;
  for (SettleRecord& one : records) {
    Result<queue::Event> event = tailrace::broker::fail(Errc::internal, "");
    switch (one.how) {
      case SettleRecord::How::ack: event = queue.ack(worker, one.offset, one.attempt, now); break;
      case SettleRecord::How::retry: event = queue.retry(worker, one.offset, one.attempt, one.ms, now); break;
      case SettleRecord::How::reject: event = queue.reject(worker, one.offset, one.attempt, now); break;
      case SettleRecord::How::extend: event = queue.extend(worker, one.offset, one.attempt, one.ms.value_or(entry->settings.options.lease_ms), now); break;
    }
    if (!event) {
      answers.emplace_back(std::unexpected(std::move(event).error()));
      continue;
    }
    if (std::holds_alternative<queue::Condemned>(*event) && !one.why.empty()) {
      if (one.why.size() > limits::kQueueWhyBytesMax) one.why.resize(limits::kQueueWhyBytesMax);
      record.why[one.offset] = std::move(one.why);
    }
    record.events.push_back(*std::move(event));
    answers.emplace_back();
  }
  if (record.events.empty()) {
    // A refusal rests on what is appended.
    if (auto all = co_await log_.committed(log_.end()); !all) co_return std::unexpected(std::move(all).error());
    co_return answers;
  }
  if (auto stored = co_await store(group, entry, std::move(record)); !stored) co_return std::unexpected(std::move(stored).error());
  co_return answers;
}

Task<Answer<Offset>> QueuePartition::retire(Offset before) {
  Instant give_up = core_.runtime.clock.now() + kRetireWait;
  Offset deletable = before;
  std::vector<std::string> names;
  for (const auto& [group, entry] : groups_) names.push_back(group);
  for (const std::string& group : names) {
    for (;;) {
      if (ended()) co_return refuse(Errc::shutting_down);
      auto found = groups_.find(group);
      if (found == groups_.end()) break;
      EntryPtr entry = found->second;
      queue::Queue::Retired retired = entry->queue->retire(before);
      if (!retired.events.empty()) {
        queue::EventsRecord record{.events = std::move(retired.events)};
        if (auto stored = co_await store(group, entry, std::move(record)); !stored) co_return std::unexpected(std::move(stored).error());
        continue;
      }
      if (retired.deletable >= before || core_.runtime.clock.now() >= give_up) {
        deletable = std::min(deletable, retired.deletable);
        break;
      }
      bool notified = co_await io::WaitUntil{entry->changed, core_.runtime, give_up};  // dead letters are on their way
      (void)notified;
    }
  }
  co_return deletable;
}

// ---- dead letters -------------------------------------------------------------------------------------------------------

Task<void> QueuePartition::move_dead_letters([[maybe_unused]] std::shared_ptr<QueuePartition> self, std::string group, EntryPtr entry) {
  const bool early = planted(PlantedBug::queue_letter_uncommitted);
  while (!ended() && !entry->gone && !(early ? entry->letters.open.empty() : entry->intents.empty())) {
    // In the order of their sequences: that of the log that the producer of the group's dead letters writes.
    // Sequences have 31 bits and wrap: the one that is furthest behind the next is the first.
    auto first = std::ranges::max_element(entry->letters.open, {}, [&](const auto& one) {
      return (static_cast<std::uint32_t>(entry->letters.next_sequence) - static_cast<std::uint32_t>(one.second.sequence)) & 0x7fffffffU;
    });
    Offset offset = first->first;
    if (!entry->intents.contains(offset) && !early) break;  // it begins again when that one is committed
    auto done = co_await bury(group, entry, offset);
    if (done) continue;
    if (ended() || entry->gone) break;
    log_warn("queue.dead_letter", "group {}: offset {} of partition {} cannot be moved now: {}", group, offset.value(), index_.value(), done.error().detail);
    bool stopped = co_await io::WaitUntil{core_.stop_signal, core_.runtime, core_.runtime.clock.now() + kMoveAgain};
    (void)stopped;
  }
  entry->moving = false;
}

Task<Answer<cluster::TopicPointer>> QueuePartition::dead_letter_topic(const Entry& entry) {
  cluster::TopicPointer origin = core_.catalog->find(topic_);
  if (!origin) co_return refuse(Errc::no_such_topic, "it was deleted");
  std::string name = entry.settings.dead_letter_topic.empty() ? origin->name + ".dlq" : entry.settings.dead_letter_topic;
  if (cluster::TopicPointer there = core_.catalog->find(name)) co_return there;
  // A largest record fits with the headers that are added.
  std::uint64_t most = std::min<std::uint64_t>({origin->config.message_bytes_max + 16 * limits::kKiB, limits::kMessageBytesCeiling, core_.log->batch_bytes_max()});
  CreateTopicRequest request{.name = name, .partitions = origin->partitions, .config = {{"message_bytes_max", fmt::format("{}", most)}}};
  auto create = [&] { return core_.node.controller->create(std::move(request)); };
  auto created = co_await core_.port.call_on(kControllerShard, std::move(create));
  if (!created && created.error().code == Errc::topic_exists) {
    if (cluster::TopicPointer there = core_.catalog->find(name)) co_return there;
  }
  co_return created;
}

/// One condemned record: into the dead-letter topic under its own sequence, then `buried` is stored.
Task<Answer<void>> QueuePartition::bury(const std::string& group, const EntryPtr& entry, Offset offset) {
  auto target = co_await dead_letter_topic(*entry);
  if (!target) co_return std::unexpected(std::move(target).error());
  if (entry->letters.producer == kNoProducer || planted(PlantedBug::queue_letter_new_producer)) {
    auto fresh = co_await core_.service->open_producer({.topic = (*target)->name});
    if (!fresh) co_return std::unexpected(std::move(fresh).error());
    queue::EventsRecord record{.producer = fresh->producer_id};
    if (auto stored = co_await store(group, entry, std::move(record)); !stored) co_return stored;
  }
  auto batch = co_await read_one(offset);
  // Somebody deleted it by hand: then what is known of it goes, without key and value.
  bool lost = !batch && batch.error().code == Errc::offset_out_of_range;
  if (!batch && !lost) co_return std::unexpected(std::move(batch).error());
  auto about = entry->queue->attempts(offset);
  auto open = entry->letters.open.find(offset);
  if (!about || open == entry->letters.open.end()) co_return refuse(Errc::not_found, "it was settled meanwhile");
  codec::RecordView record{.timestamp = now_ms()};
  std::optional<codec::BatchReader> reader;  // owns what the record points to
  if (!lost) {
    auto opened = codec::BatchReader::open(batch->bytes(), {.check_crc = false});
    if (!opened) co_return refuse(Errc::corrupt, std::move(opened).error().detail);
    reader.emplace(*std::move(opened));
    bool there = false;
    while (!there && reader->next(record)) there = record.offset == offset;
    if (!there) co_return refuse(Errc::corrupt, fmt::format("offset {} is not in its batch", offset.value()));
  }
  cluster::TopicPointer origin = core_.catalog ? core_.catalog->find(topic_) : nullptr;
  if (!origin) co_return refuse(Errc::no_such_topic, "it was deleted");
  std::vector<std::pair<std::string, std::string>> extra{{"tailrace-dlq-topic", origin->name},
                                                         {"tailrace-dlq-partition", fmt::format("{}", index_.value())},
                                                         {"tailrace-dlq-offset", fmt::format("{}", offset.value())},
                                                         {"tailrace-dlq-timestamp", fmt::format("{}", record.timestamp)},
                                                         {"tailrace-dlq-group", group},
                                                         {"tailrace-dlq-attempts", fmt::format("{}", about->first)},
                                                         {"tailrace-dlq-reason", std::string{name_of(about->second)}}};
  if (lost) extra.emplace_back("tailrace-dlq-lost", "the record was deleted before it could be moved");
  if (!open->second.why.empty()) extra.emplace_back("tailrace-dlq-why", open->second.why);
  std::vector<codec::HeaderView> headers;
  for (const codec::HeaderView& header : record.headers) headers.push_back(header);
  for (const auto& [key, value] : extra) headers.push_back({key, as_bytes(value)});
  codec::BatchBuilder builder{{.bytes_max = limits::kMessageBytesCeiling}};
  if (auto added = builder.add({.timestamp = record.timestamp, .key = record.key, .value = record.value, .headers = headers}); !added) co_return std::unexpected(Refusal{std::move(added).error()});
  auto built = builder.finish({.producer_id = entry->letters.producer, .producer_epoch = ProducerEpoch{0}, .base_sequence = open->second.sequence});
  if (!built) co_return std::unexpected(Refusal{std::move(built).error()});
  auto header = read_batch_header(built->bytes(), built->length);
  if (!header) co_return std::unexpected(Refusal{std::move(header).error()});
  PartitionIndex to{index_.value() % (*target)->partitions};
  auto produced = co_await core_.service->produce({.topic = (*target)->id, .partition = to, .batch = *built, .header = *header});
  bool unknown = !produced && (produced.error().code == Errc::unknown_producer || produced.error().code == Errc::out_of_order_sequence || produced.error().code == Errc::fenced);
  if (unknown) {
    // The topic was made anew, or has forgotten this producer: another one, for what is open.
    entry->letters.producer = kNoProducer;
    co_return std::unexpected(std::move(produced).error());
  }
  if (!produced) co_return std::unexpected(std::move(produced).error());
  if (entry->gone || failed_) co_return refuse(Errc::no_such_group, "it was deleted meanwhile");
  auto event = entry->queue->buried(offset);
  if (!event) co_return refuse(Errc::internal, event.error().detail);
  queue::EventsRecord buried{.events = {*std::move(event)}};
  co_return co_await store(group, entry, std::move(buried));
}

}  // namespace tailrace::broker::service
