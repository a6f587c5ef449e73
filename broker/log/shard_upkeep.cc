// What keeps a shard going behind its appends: WAL files made ready and recycled, checkpoints, memory, disk space.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/planted.h"
#include "log/shard_log_impl.h"

namespace tailrace::broker::log {
namespace {

constexpr std::size_t kSettleLanes = 32;
constexpr std::chrono::seconds kSpacePoll{1};
constexpr int kUpkeepFailuresMax = 3;
/// Produce is refused below a twentieth of the disk, at most 2 GiB: what is left is for checkpoints, deletes and a last
/// flush. Admitted again a little above it.
constexpr std::uint64_t kReserveMax = std::uint64_t{2} << 30;

std::uint64_t reserve_of(std::uint64_t total) { return std::min(total / 20, kReserveMax); }

}  // namespace

void ShardLogImpl::wake() {
  upkeep_wanted_ = true;
  if (work_.posted || stopping_ || !started_) return;
  work_.posted = true;
  runtime_.executor.post(work_);
}

void ShardLogImpl::Context::want_flush(PartitionLog& partition) {
  partition.flush_queued = true;
  auto found = log.entries_.find(partition.id());
  if (found == log.entries_.end() || found->second.partition.get() != &partition) return;
  log.flush_queue_.push_back(found->second.partition);
  if (log.work_.posted) return;
  log.work_.posted = true;
  log.runtime_.executor.post(log.work_);
}

void ShardLogImpl::Context::hot_grew() {
  log.evict_blocked_ = false;
  log.evict_wanted_ = true;
  if (log.work_.posted) return;
  log.work_.posted = true;
  log.runtime_.executor.post(log.work_);
}

void ShardLogImpl::Context::space_ran_out() { log.set_disk_full(true); }

void ShardLogImpl::Context::directory_failed(Error error) { log.wal_.fail(std::move(error)); }

void ShardLogImpl::on_failed(const Error& error) {
  if (directory_failure_) return;
  directory_failure_ = error;
  wal_.fail(error);
  for (auto& [id, entry] : entries_) {
    if (entry.partition) entry.partition->fail_waiters();
  }
  pressure_.notify_all();
}

void ShardLogImpl::work_turn() {
  while (!flush_queue_.empty() && !stopping_) {
    PartitionLogPtr partition = std::move(flush_queue_.front());
    flush_queue_.pop_front();
    background_.spawn(flush_one(std::move(partition)));
  }
  if (evict_wanted_) evict();
  if (upkeep_wanted_ && !upkeep_running_ && !stopping_ && started_) {
    upkeep_running_ = true;
    background_.spawn(upkeep());
  }
}

Task<void> ShardLogImpl::flush_one(PartitionLogPtr partition) {
  auto flushed = co_await partition->flush(FlushMode::blocks);
  partition->flush_queued = false;
  if (!flushed && flushed.error().code != Errc::storage_full && !failed()) {
    log_warn("segment.not_flushed", "shard {}: {}", options_.shard.value(), flushed.error().detail);
  }
}

Task<void> ShardLogImpl::upkeep() {
  while (upkeep_wanted_ && !stopping_ && !failed()) {
    upkeep_wanted_ = false;
    if (flush_for_memory_) {
      flush_for_memory_ = false;
      auto settled = co_await settle_all(wal_.durable() + 1);
      if (!settled && !failed()) log_warn("shard.memory", "shard {}: {}", options_.shard.value(), settled.error().detail);
      evict_blocked_ = false;
      evict();
    }
    co_await check_space();
    auto done = co_await prepare_next();
    if (done && !files_.can_prepare() && files_.full_count() > 0) done = co_await recycle_oldest();
    if (done && !files_.prepared()) done = co_await prepare_next();
    upkeep_failures_ = done ? 0 : upkeep_failures_ + 1;
    if (done && files_.prepared() && !context_.disk_full) {
      auto kept = co_await files_.keep_one_back();
      if (!kept) log_warn("wal.none_kept_back", "shard {}: {}", options_.shard.value(), kept.error().detail);
    }
    if (!done && !failed()) {
      log_warn("wal.upkeep", "shard {}: {}", options_.shard.value(), done.error().detail);
      bool full = done.error().code == Errc::storage_full;
      bool may_pass = full || done.error().code == Errc::no_credit || done.error().code == Errc::descriptors_exhausted;
      if (full) set_disk_full(true);
      if ((closing_ && full) || ((closing_ || !may_pass) && upkeep_failures_ >= kUpkeepFailuresMax)) {
        // Nobody waits for space any more, or the disk says no again and again.
        on_failed(done.error());
      } else {
        runtime_.timers.arm(space_timer_, runtime_.clock.now() + kSpacePoll);
      }
    }
  }
  upkeep_running_ = false;
  upkeep_ended_.notify_all();
}

Task<Result<void>> ShardLogImpl::prepare_next() {
  if (files_.prepared()) co_return Result<void>{};
  while (!files_.can_prepare()) {
    std::size_t full = files_.full_count();
    if (full == 0) co_return Result<void>{};
    TAILRACE_CO_TRY_VOID(co_await recycle_oldest());
    if (files_.full_count() == full) break;
  }
  TAILRACE_CO_TRY_VOID(co_await files_.prepare({}));
  const WalFileHeader& header = files_.prepared()->header;
  // So that its loss would be noticed: recovery looks for the file this frame names.
  Buffer payload = Buffer::allocate(24);
  store_le(payload.data(), header.sequence);
  store_le(payload.data() + 8, header.salt);
  store_le(payload.data() + 16, header.slot);
  store_le(payload.data() + 20, std::uint32_t{0});
  if (!failed()) wal_.append(FrameHeader{.type = FrameType::file_prepared}, Slice::whole(std::move(payload)), nullptr);
  wal_.file_ready();
  co_return Result<void>{};
}

/// Oldest first, and only when nothing needs it: its partitions' segments are synced behind its frames, remainders are
/// copied forward, and both checkpoint copies say so.
Task<Result<void>> ShardLogImpl::recycle_oldest() {
  std::uint64_t oldest = files_.oldest_in_use();
  if (oldest == 0 || !files_.active() || oldest == files_.active()->header.sequence) co_return Result<void>{};
  std::uint64_t boundary = wal_.first_frame_of(oldest + 1);
  if (boundary == 0) boundary = wal_.durable() + 1;
  if (!planted(PlantedBug::recycle_too_early)) TAILRACE_CO_TRY_VOID(co_await settle_all(boundary));
  TAILRACE_CO_TRY_VOID(co_await write_checkpoints(false));
  co_return Result<void>{};
}

Task<Result<void>> ShardLogImpl::settle_all(std::uint64_t boundary) {
  std::vector<PartitionId> to_open;
  for (const auto& [id, entry] : entries_) {
    if (!entry.recovered || entry.recovered->tail.empty()) continue;
    if (entry.recovered->tail.front().frame < boundary) to_open.push_back(id);
  }
  for (const PartitionId& id : to_open) {
    auto opened = co_await open_entry(id);
    if (!opened && opened.error().code != Errc::no_such_partition) co_return std::unexpected(opened.error());
  }
  std::vector<PartitionLogPtr> list;
  for (const auto& [id, entry] : entries_) {
    if (!entry.partition) continue;
    auto needed = entry.partition->needed_frame();
    if (needed && *needed < boundary) list.push_back(entry.partition);
  }
  auto settle = [boundary](PartitionLog& partition) { return partition.settle(boundary); };
  auto settled = co_await on_each(std::move(list), settle);
  if (!settled) co_return std::unexpected(settled.error());
  co_return Result<void>{};
}

Task<Result<bool>> ShardLogImpl::on_each(std::vector<PartitionLogPtr> list, PartitionWork work, std::optional<Instant> until) {
  Result<bool> result = true;
  std::size_t next = 0;
  auto lane = [&]() -> Task<void> {
    while (next < list.size() && result && *result) {
      if (until && runtime_.clock.now() >= *until) {
        result = false;
        co_return;
      }
      PartitionLogPtr partition = list[next++];
      auto done = co_await work(*partition);
      if (!done && result) result = std::unexpected(done.error());
    }
  };
  TaskScope lanes;
  for (std::size_t i = 0; i < std::min(kSettleLanes, list.size()); ++i) lanes.spawn(lane());
  co_await lanes.drain();
  co_return result;
}

Task<Result<bool>> ShardLogImpl::flush_everything(std::optional<Instant> until) {
  std::vector<PartitionId> to_open;
  for (const auto& [id, entry] : entries_) {
    if (entry.recovered && !entry.recovered->tail.empty()) to_open.push_back(id);
  }
  for (const PartitionId& id : to_open) {
    if (until && runtime_.clock.now() >= *until) co_return false;
    auto opened = co_await open_entry(id);
    if (!opened && opened.error().code != Errc::no_such_partition) co_return std::unexpected(opened.error());
  }
  if (files_.active() && wal_.last_appended() > wal_.durable()) {
    TAILRACE_CO_TRY_VOID(co_await wal_.wait_durable(wal_.last_appended()));
  }
  std::vector<PartitionLogPtr> list;
  for (const auto& [id, entry] : entries_) {
    if (entry.partition && entry.partition->needed_frame()) list.push_back(entry.partition);
  }
  auto flush = [](PartitionLog& partition) { return partition.flush(FlushMode::partial); };
  co_return co_await on_each(std::move(list), flush, until);
}

Checkpoint ShardLogImpl::capture(bool clean) const {
  Checkpoint c;
  c.shard = options_.shard.value();
  c.slots = static_cast<std::uint32_t>(files_.slot_count());
  c.directory_id = directory_id_bytes(options_.directory_id);
  c.wal_file_bytes = options_.wal_file_bytes;
  c.durable_frame = wal_.durable();
  c.next_number = next_number_;
  c.incarnation = incarnation_;
  c.clean = clean;
  const WalSlot* active = const_cast<WalFiles&>(files_).active();
  std::uint64_t newest = active ? active->header.sequence : files_.next_sequence();
  c.newest_file = active ? newest : 0;
  std::uint64_t needed_min = wal_.durable() + 1;
  for (const auto& [id, entry] : entries_) {
    if (entry.partition) {
      if (auto needed = entry.partition->needed_frame()) needed_min = std::min(needed_min, *needed);
      c.partitions.push_back(entry.partition->checkpoint());
    } else if (entry.recovered) {
      PartitionCheckpoint p = entry.recovered->state;
      if (entry.recovered->tail.empty()) {
        p.applied_through = std::max(p.applied_through, wal_.durable());
      } else {
        needed_min = std::min(needed_min, entry.recovered->tail.front().frame);
        p.applied_through = std::max(p.applied_through, entry.recovered->tail.front().frame - 1);
      }
      c.partitions.push_back(std::move(p));
    }
  }
  for (const auto& [number, id] : removed_) {
    PartitionCheckpoint p;
    p.number = number;
    p.id = id;
    p.removed = true;
    p.applied_through = wal_.durable();
    c.partitions.push_back(p);
  }
  std::ranges::sort(c.partitions, {}, &PartitionCheckpoint::number);
  // Before the first file of this run is begun, and with nothing needed of the earlier ones, the log begins with it.
  bool none_needed = !active && needed_min > wal_.durable();
  std::uint64_t file = none_needed ? newest : wal_.file_of(needed_min);
  if (file == 0) file = files_.oldest_in_use();  // before all that is known: nothing may be freed
  c.oldest_file = file == 0 || file > newest ? newest : file;
  std::uint64_t first = wal_.first_frame_of(c.oldest_file);
  c.oldest_frame = first == 0 ? wal_.durable() + 1 : first;
  return c;
}

Task<Result<void>> ShardLogImpl::write_checkpoints(bool clean) {
  auto held = co_await checkpoint_lock_.acquire();
  Checkpoint checkpoint = capture(clean);
  if (planted(PlantedBug::recycle_too_early) && files_.active()) {
    checkpoint.oldest_file = std::max(checkpoint.oldest_file, files_.oldest_in_use() + 1);
    checkpoint.oldest_file = std::min(checkpoint.oldest_file, files_.active()->header.sequence);
    checkpoint.oldest_frame = wal_.first_frame_of(checkpoint.oldest_file);
  }
  // Both copies: whichever is lost later, the other names no file that was recycled meanwhile.
  TAILRACE_CO_TRY(std::uint64_t bytes, co_await write_checkpoint_copies(runtime_, folder(), checkpoint_copies_, checkpoint));
  stats_.checkpoints += 2;
  stats_.checkpoint_bytes += bytes;
  std::size_t freed = files_.free_before(checkpoint.oldest_file);
  stats_.wal_recycles += freed;
  wal_.forget_files_before(checkpoint.oldest_file);
  co_return Result<void>{};
}

/// Round by round, from each partition what its segments hold, until the tail fits its budget.
void ShardLogImpl::evict() {
  evict_wanted_ = false;
  if (evict_blocked_ || stats_.hot_bytes <= options_.hot_tail_bytes) return;
  std::uint64_t goal = options_.hot_tail_bytes - options_.hot_tail_bytes / 16;
  std::size_t without = 0;
  while (stats_.hot_bytes > goal && without < evict_ring_.size()) {
    if (evict_at_ >= evict_ring_.size()) evict_at_ = 0;
    PartitionLogPtr partition = evict_ring_[evict_at_].lock();
    if (!partition) {
      evict_ring_[evict_at_] = evict_ring_.back();
      evict_ring_.pop_back();
      continue;
    }
    ++evict_at_;
    without = partition->evict(limits::kMiB) > 0 ? 0 : without + 1;
  }
  if (stats_.hot_bytes <= options_.hot_tail_bytes) return;
  evict_blocked_ = true;  // what is left is not synced: sync it
  flush_for_memory_ = true;
  wake();
}

void ShardLogImpl::set_disk_full(bool full) {
  if (full && !stopping_) runtime_.timers.arm(space_timer_, runtime_.clock.now() + kSpacePoll);
  if (context_.disk_full == full) return;
  context_.disk_full = full;
  if (full) log_warn("disk.full", "{}: records are refused until space returns", options_.data_directory);
  else log_warn("disk.space_returned", "{}: records are accepted again", options_.data_directory);
  pressure_.notify_all();
  if (!full) wake();
}

Task<void> ShardLogImpl::check_space() {
  auto space = co_await runtime_.files.space(options_.data_directory);
  if (!space) {
    if (!std::exchange(space_unknown_, true)) log_warn("disk.space_unknown", "{}", space.error().detail);
    if (context_.disk_full && !stopping_) runtime_.timers.arm(space_timer_, runtime_.clock.now() + kSpacePoll);
    co_return;
  }
  space_unknown_ = false;
  context_.free_bytes = stats_.free_bytes = space->free_bytes;
  context_.total_bytes = space->total_bytes;
  std::uint64_t reserve = reserve_of(space->total_bytes);
  if (space->free_bytes < reserve) {
    set_disk_full(true);
  } else if (context_.disk_full && space->free_bytes >= reserve + reserve / 8) {
    set_disk_full(false);
    for (auto& [id, entry] : entries_) {
      // What could not be written then is written now.
      if (entry.partition && !entry.partition->flush_queued && entry.partition->unsynced_bytes() >= limits::kMiB) context_.want_flush(*entry.partition);
    }
  } else if (context_.disk_full && !stopping_) {
    runtime_.timers.arm(space_timer_, runtime_.clock.now() + kSpacePoll);
  }
}

Task<void> ShardLogImpl::poll_space() {
  co_await check_space();
  wake();  // whatever failed for want of space is tried again
}

}  // namespace tailrace::broker::log
