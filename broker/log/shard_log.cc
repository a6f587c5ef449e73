#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/log.h"
#include "log/shard_log_impl.h"

namespace tailrace::broker::log {
namespace {

constexpr Duration kCloseFlush = std::chrono::seconds{3};  // of shutdown.deadline's 10 s

}  // namespace

void LatencyHistogram::record(Duration d) {
  auto us = static_cast<std::uint64_t>(std::max<std::int64_t>(std::chrono::duration_cast<std::chrono::microseconds>(d).count(), 0));
  std::size_t bucket = us < 2 ? 0 : static_cast<std::size_t>(std::bit_width(us) - 1);
  ++buckets[std::min(bucket, buckets.size() - 1)];
  ++count;
  sum_us += us;
}

Task<Result<std::unique_ptr<ShardLog>>> ShardLog::open(io::Runtime& runtime, ShardLogOptions options) {
  bool sane = options.wal_file_bytes >= limits::kWalFileBytesMin && options.wal_file_bytes <= limits::kWalFileBytesMax &&
              options.wal_file_bytes % limits::kWalBlock == 0 && options.wal_files >= limits::kWalFilesMin && options.wal_files <= limits::kWalFilesMax;
  if (!sane) co_return fail(Errc::invalid_argument, "wal.file_bytes is 64 KiB to 256 MiB in steps of 4 KiB, wal.files 2 to 16");
  auto log = std::make_unique<ShardLogImpl>(runtime, std::move(options));
  auto started = co_await log->start();
  if (!started) {
    co_await log->close();
    co_return std::unexpected(std::move(started.error()));
  }
  co_return std::unique_ptr<ShardLog>{std::move(log)};
}

ShardLogImpl::Context::Context(ShardLogImpl& log_in)
    : ShardContext{log_in.runtime_, log_in.options_, log_in.stats_, log_in.wal_, log_in.cache_, log_in.cold_}, log{log_in} {}

ShardLogImpl::ShardLogImpl(io::Runtime& runtime, ShardLogOptions options)
    : runtime_{runtime},
      options_{std::move(options)},
      files_{runtime, WalFilesOptions{.folder = folder() + "/wal", .shard = options_.shard.value(),
                                      .directory_id = directory_id_bytes(options_.directory_id),
                                      .file_bytes = options_.wal_file_bytes, .files = options_.wal_files}},
      wal_{runtime, files_, stats_, options_},
      cache_{runtime, options_.open_files_max, stats_},
      cold_{runtime, cache_, options_.read_pool_bytes, stats_},
      pressure_{runtime.executor},
      context_{*this},
      upkeep_ended_{runtime.executor},
      checkpoint_lock_{runtime.executor} {
  work_.log = this;
  work_.run = [](Runnable* self) noexcept {
    auto* work = static_cast<Work*>(self);
    work->posted = false;
    work->log->work_turn();
  };
  space_timer_.log = this;
  space_timer_.fire = [](io::Timer* self) noexcept {
    ShardLogImpl* log = static_cast<SpaceTimer*>(self)->log;
    if (!log->stopping_) log->background_.spawn(log->poll_space());
  };
  wal_.set_hooks({.need_file = [this] { wake(); },
                  .failed = [this](const Error& error) { on_failed(error); },
                  .room = [this] { pressure_.notify_all(); }});
}

ShardLogImpl::~ShardLogImpl() { TAILRACE_CHECK(closed_, "a shard log is closed before it goes away"); }

Task<Result<void>> ShardLogImpl::start() {
  co_await check_space();
  RecoveredShard found;
  TAILRACE_CO_TRY_VOID(co_await recover(runtime_, options_, found));
  report_ = found.report;
  next_number_ = found.next_number;
  incarnation_ = found.checkpoint.incarnation + 1;
  checkpoint_copies_ = found.checkpoint_copies;
  for (auto& [number, p] : found.partitions) {
    if (p.removed) {
      removed_.emplace_back(number, p.state.id);
      continue;
    }
    PartitionId id = p.state.id;
    Entry entry{.number = number, .recovered = std::make_unique<RecoveredPartition>(std::move(p))};
    entries_[id] = std::move(entry);
  }
  for (auto& s : found.slots) files_.adopt(std::move(s.slot), s.live);
  wal_.resume(found.next_frame, found.previous_header_crc, found.file_starts);
  files_.set_next_sequence(found.next_file);
  bool missing_slots = found.slots.size() < found.checkpoint.slots;
  if (missing_slots) log_warn("wal.slot_missing", "shard {}: {} of {} WAL files are there", options_.shard.value(), found.slots.size(), found.checkpoint.slots);
  bool last = false;
  if (!files_.can_prepare()) {
    auto freed = co_await free_a_slot_before_start();
    last = !freed && freed.error().code == Errc::storage_full;
    if (!freed && !last) co_return freed;
    if (last) log_warn("disk.full", "{}: the log goes on in the file kept back; records are refused until space returns", options_.data_directory);
  }
  TAILRACE_CO_TRY_VOID(co_await files_.prepare(found.chain, last));
  files_.activate();
  wal_.start();
  // From its first frame on, the loss of this file is noticed: the checkpoint names it.
  // After a clean stop it must be there: the one before says that no frame follows. It is written over one of its own size.
  auto named = co_await write_checkpoints(false);
  if (!named && (found.checkpoint.clean || named.error().code != Errc::storage_full)) co_return named;
  started_ = true;
  for (const auto& [number, id] : removed_) background_.spawn(delete_removed(Entry{.number = number}, id));
  wake();
  co_return Result<void>{};
}

/// Every slot holds frames that are still needed, and none may be written before one is free: all goes to the segments.
Task<Result<void>> ShardLogImpl::free_a_slot_before_start() {
  auto flushed = co_await flush_everything();
  if (!flushed) co_return std::unexpected(flushed.error());
  TAILRACE_CO_TRY_VOID(co_await write_checkpoints(false));
  files_.free_before(files_.next_sequence());
  co_return Result<void>{};
}

PartitionPtr ShardLogImpl::find(const PartitionId& id) {
  auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : found->second.partition;
}

std::vector<PartitionId> ShardLogImpl::stored_partitions() const {
  std::vector<PartitionId> ids;
  ids.reserve(entries_.size());
  for (const auto& [id, entry] : entries_) ids.push_back(id);
  std::ranges::sort(ids);
  return ids;
}

Task<Result<PartitionPtr>> ShardLogImpl::create(PartitionId id, PartitionOptions options, Begin begin, std::vector<std::byte> members) {
  if (closing_) co_return fail(Errc::closed, "shard log");
  if (failed()) co_return std::unexpected(failure());
  if (context_.disk_full) co_return fail(Errc::storage_full, options_.data_directory);
  if (entries_.contains(id)) co_return fail(Errc::exists, "partition");
  if (members.size() > kMembersBytesMax) co_return fail(Errc::invalid_argument, "members");
  if (begin == Begin::lost) {
    TAILRACE_CO_TRY_VOID(co_await set_files_aside(runtime_, partition_folder(options_.data_directory, id)));
    if (entries_.contains(id)) co_return fail(Errc::exists, "partition");
    ++stats_.found_damaged;
  }
  std::uint32_t number = next_number_++;
  Entry& entry = entries_[id];
  entry.number = number;
  entry.opening = std::make_shared<Opening>(runtime_.executor);
  auto opening = entry.opening;
  auto partition = std::make_shared<PartitionLog>(context_, number, id, options);
  RecoveredPartition empty;
  empty.state.number = number;
  empty.state.id = id;
  empty.state.history.members = members;
  if (begin == Begin::lost) empty.state.holes.push_back({});
  entry.recovered = std::make_unique<RecoveredPartition>(empty);  // in every checkpoint from here on
  auto done = co_await partition->load(std::move(empty));
  if (done) {
    Buffer payload = Buffer::allocate(kPartitionCreateBytes + members.size());
    std::memcpy(payload.data(), id.topic.bytes.data(), 16);
    store_le(payload.data() + 16, id.index.value());
    if (!members.empty()) std::memcpy(payload.data() + kPartitionCreateBytes, members.data(), members.size());
    FrameHeader header{.type = FrameType::partition_create, .partition = number};
    header.position = begin == Begin::lost ? kBeginsLost : 0;
    done = co_await wal_.wait_durable(wal_.append(header, Slice::whole(std::move(payload)), nullptr));
  }
  auto found = entries_.find(id);
  bool still_ours = found != entries_.end() && found->second.number == number;
  if (still_ours) {
    found->second.opening.reset();
    if (done) found->second.partition = partition;
    found->second.recovered.reset();
    if (!done) entries_.erase(found);
  }
  opening->finished = true;
  if (!done) opening->error = done.error();
  opening->done.notify_all();
  if (!done) co_return std::unexpected(done.error());
  evict_ring_.push_back(partition);
  co_return PartitionPtr{std::move(partition)};
}

Task<Result<PartitionPtr>> ShardLogImpl::open_partition(PartitionId id, PartitionOptions options) {
  if (closing_) co_return fail(Errc::closed, "shard log");
  TAILRACE_CO_TRY(PartitionLogPtr partition, co_await open_entry(id));
  partition->configure(options);
  co_return PartitionPtr{std::move(partition)};
}

Task<Result<ShardLogImpl::PartitionLogPtr>> ShardLogImpl::open_entry(PartitionId id) {
  for (;;) {
    auto found = entries_.find(id);
    if (found == entries_.end()) co_return fail(Errc::no_such_partition, "not stored here");
    Entry& entry = found->second;
    if (entry.partition) co_return entry.partition;
    if (entry.opening) {
      std::shared_ptr<Opening> opening = entry.opening;
      while (!opening->finished) co_await opening->done.wait();
      if (opening->error) co_return std::unexpected(*opening->error);
      continue;
    }
    auto opening = std::make_shared<Opening>(runtime_.executor);
    entry.opening = opening;
    std::uint32_t number = entry.number;
    auto partition = std::make_shared<PartitionLog>(context_, number, id, PartitionOptions{});
    RecoveredPartition state = *entry.recovered;  // kept until it worked: an error of the moment must not lose it
    auto loaded = co_await fetch_tail(state.tail, [this](std::uint64_t file) { return files_.source(file); });
    if (loaded) loaded = co_await partition->load(std::move(state));
    found = entries_.find(id);
    bool ours = found != entries_.end() && found->second.number == number;
    if (ours) {
      found->second.opening.reset();
      if (loaded) {
        found->second.partition = partition;
        found->second.recovered.reset();
        evict_ring_.push_back(partition);
      }
    }
    opening->finished = true;
    if (!loaded) opening->error = loaded.error();
    opening->done.notify_all();
    if (!loaded) co_return std::unexpected(loaded.error());
    if (!ours) co_return fail(Errc::no_such_partition, "it was deleted");
    co_return partition;
  }
}

Task<Result<void>> ShardLogImpl::remove(PartitionId id) {
  if (closing_) co_return fail(Errc::closed, "shard log");
  if (failed()) co_return std::unexpected(failure());
  for (;;) {  // not while it is being opened
    auto found = entries_.find(id);
    if (found == entries_.end()) co_return fail(Errc::no_such_partition, "not stored here");
    if (!found->second.opening) break;
    std::shared_ptr<Opening> opening = found->second.opening;
    while (!opening->finished) co_await opening->done.wait();
  }
  auto found = entries_.find(id);
  Entry entry = std::move(found->second);
  entries_.erase(found);
  removed_.emplace_back(entry.number, id);
  if (entry.partition) entry.partition->mark_removed();
  FrameHeader header{.type = FrameType::partition_delete, .partition = entry.number};
  auto done = co_await wal_.wait_durable(wal_.append(header, {}, nullptr));
  if (entry.partition && entry.partition->flush_queued) {
    std::erase(flush_queue_, entry.partition);
    entry.partition->flush_queued = false;
  }
  if (!done) {
    // The writer may still know the partition as a listener of commits in flight: it stays until close.
    if (entry.partition) evict_ring_.push_back(entry.partition);
    if (entry.partition) failed_partitions_.push_back(std::move(entry.partition));
    co_return done;
  }
  background_.spawn(delete_removed(std::move(entry), id));
  co_return Result<void>{};
}

Task<void> ShardLogImpl::delete_removed(Entry entry, PartitionId id) {
  // Created again meanwhile: the folder is the new one's.
  bool reused = entries_.contains(id);
  Result<void> gone{};
  if (!reused && entry.partition) gone = co_await entry.partition->delete_files();
  else if (!reused) gone = co_await delete_partition_files(runtime_, options_.data_directory, id);
  else if (entry.partition) co_await entry.partition->quiesce();
  if (entry.partition) entry.partition->detach();
  if (entry.partition) co_await entry.partition->calls_ended();
  if (!gone) {
    log_warn("partition.files_left", "{}: {}", partition_folder(options_.data_directory, id), gone.error().detail);
    co_return;
  }
  std::erase_if(removed_, [&](const auto& r) { return r.first == entry.number; });
}

/// Openings, and calls that wait for the disk: they answer before what they work on goes away.
Task<void> ShardLogImpl::calls_ended() {
  std::vector<PartitionLogPtr> partitions = failed_partitions_;
  std::vector<std::shared_ptr<Opening>> openings;
  for (const auto& [id, entry] : entries_) {
    if (entry.partition) partitions.push_back(entry.partition);
    if (entry.opening) openings.push_back(entry.opening);
  }
  for (const auto& opening : openings) {
    while (!opening->finished) co_await opening->done.wait();
  }
  for (const auto& partition : partitions) co_await partition->calls_ended();
}

void ShardLogImpl::begin_close() {
  closing_ = true;
  pressure_.notify_all();
}

Task<void> ShardLogImpl::close() {
  if (closed_) co_return;
  begin_close();
  if (!failed() && started_) {
    // Ten thousand tails take longer than anybody waits for a stop. What is not in segments by then is in the WAL.
    auto flushed = co_await flush_everything(runtime_.clock.now() + kCloseFlush);
    if (!flushed) log_warn("shard.not_flushed", "shard {}: {}; the next start replays the WAL", options_.shard.value(), flushed.error().detail);
    if (!flushed && !failed()) on_failed(flushed.error());  // whoever still waits for the WAL must not wait for ever
    do {  // upkeep may add frames, and frames may need upkeep: until neither is left
      co_await wal_.drain();
      while (upkeep_running_ && !failed()) co_await upkeep_ended_.wait();
    } while (!failed() && wal_.durable() != wal_.last_appended());
    stopping_ = true;  // no upkeep from here on: it would add frames behind the checkpoint
    if (!failed()) {
      if (flushed && !*flushed) log_info("shard.left_in_wal", "shard {}: not all is in segments; the next start reads the WAL", options_.shard.value());
      auto written = co_await write_checkpoints(flushed && *flushed);
      if (!written) log_warn("shard.no_checkpoint", "shard {}: {}", options_.shard.value(), written.error().detail);
    }
  }
  stopping_ = true;
  runtime_.timers.disarm(space_timer_);
  for (auto& [id, entry] : entries_) {
    if (entry.partition) entry.partition->shut();
  }
  co_await background_.drain();
  co_await cold_.drain();
  while (work_.posted) co_await yield_to(runtime_.executor);
  co_await wal_.close();
  co_await calls_ended();
  co_await yield_to(runtime_.executor);  // those who were told run before the partitions go
  for (auto& [id, entry] : entries_) {
    if (entry.partition) entry.partition->detach();
  }
  for (const PartitionLogPtr& partition : failed_partitions_) partition->detach();
  entries_.clear();
  failed_partitions_.clear();
  flush_queue_.clear();
  runtime_.timers.disarm(space_timer_);
  closed_ = true;
}

}  // namespace tailrace::broker::log
