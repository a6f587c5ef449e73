/// The fetch path: find the batches on the owner's shard, wait there for data, count what goes out.
#include <fmt/format.h>

#include "service/fetch_wait.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
namespace {

/// Drops whole batches from the back once `records_max` records at or above `from` are taken: the last one may overdraw.
/// The bytes were bounded by the read.
Result<void> count_and_cut(FetchReply& reply, Offset from, std::uint64_t records_max) {
  std::size_t kept = 0;
  for (const Slice& batch : reply.batches) {
    TAILRACE_TRY(BatchHeader header, read_batch_header(batch.bytes(), batch.length));
    Offset first = std::max(header.base_offset, from);
    reply.records += static_cast<std::uint64_t>(std::max<std::int64_t>(header.next_offset() - first, 0));
    reply.bytes += batch.length;
    reply.next = header.next_offset();
    reply.leader_epoch = header.leader_epoch;
    ++kept;
    if (records_max != 0 && reply.records >= records_max) break;
  }
  reply.batches.resize(kept);
  return {};
}

Refusal out_of_range(Offset from, const log::Partition& partition) {
  return {Errc::offset_out_of_range,
          fmt::format("offset {} is outside {}..{}", from.value(), partition.log_start().value(), partition.high_watermark().value()),
          {{"log_start", fmt::format("{}", partition.log_start().value())},
           {"high_watermark", fmt::format("{}", partition.high_watermark().value())},
           {"log_end", fmt::format("{}", partition.log_end().value())}}};
}

}  // namespace

Task<Answer<FetchReply>> ShardCore::fetch(FetchRequest request, OwnerWait& wait) {
  auto found = slot_for({request.topic, request.partition});
  if (!found) co_return std::unexpected(std::move(found).error());
  SlotUse slot{*std::move(found)};
  if (!slot->log) {
    if (auto opened = co_await open(*slot); !opened) co_return std::unexpected(std::move(opened).error());
  }
  log::PartitionPtr partition = slot->log;
  log::ReadLimits read_limits;
  read_limits.bytes_max = std::min<std::uint64_t>(std::max<std::uint64_t>(request.bytes_max, 1), limits::kFetchBytesMax);

  for (;;) {
    if (auto fine = admit(*slot); !fine) co_return std::unexpected(std::move(fine).error());
    if (wait.cancelled) co_return refuse(Errc::cancelled);
    if (!slot->replicated->serving()) co_return std::unexpected(Refusal{slot->replicated->not_leader()});
    // An offset between high watermark and log end was given to a producer who did not wait for the flush: it will come.
    bool lost = partition->lost(request.from);  // read() says so
    if (request.from < partition->log_start() || (request.from > partition->log_end() && !lost)) {
      co_return std::unexpected(out_of_range(request.from, *partition));
    }
    if (request.from < partition->high_watermark() || lost) {
      Instant begun = runtime.clock.now();
      auto read = co_await partition->read(request.from, read_limits);
      if (!read) {
        if (read.error().code == Errc::offset_out_of_range) co_return std::unexpected(out_of_range(request.from, *partition));
        co_return std::unexpected(from_log(std::move(read).error()));
      }
      FetchReply reply{.batches = std::move(read->batches), .next = request.from, .log_start = read->log_start,
                       .high_watermark = read->high_watermark};
      std::uint64_t records_max = std::min<std::uint64_t>(request.records_max ? request.records_max : limits::kFetchRecordsMax, limits::kFetchRecordsMax);
      if (auto counted = count_and_cut(reply, request.from, records_max); !counted) {
        co_return refuse(Errc::corrupt, "a stored batch has no valid header");
      }
      if (reply.batches.empty()) reply.next = std::max(read->next, request.from);  // a gap that holds no batch
      ++counters.fetches;
      counters.fetch_latency.record(runtime.clock.now() - begun);
      slot->counters->records_out += reply.records;
      slot->counters->bytes_out += reply.bytes;
      co_return reply;
    }
    if (runtime.clock.now() >= request.wait_until) {
      ++counters.fetches;
      co_return FetchReply{.batches = {}, .next = request.from, .log_start = partition->log_start(),
                           .high_watermark = partition->high_watermark(), .leader_epoch = partition->term()};
    }
    ++counters.fetch_waits;
    ++waits;
    CancellableWait pause{partition->advanced(), runtime, request.wait_until};
    wait.waiting = &pause;
    co_await pause;
    wait.waiting = nullptr;
    --waits;
  }
}

/// Runs on the owner for a reader elsewhere, and carries the answer there.
Task<void> ShardCore::fetch_for(ShardIndex reader, FetchRequest request, std::shared_ptr<RemoteWait> wait) {
  Answer<FetchReply> answer = co_await fetch(std::move(request), wait->owner);
  auto deliver = [&wait, &answer] {
    if (!wait->arrived) return;  // cancelled meanwhile
    wait->reply = std::move(answer);
    wait->arrived->notify_all();
  };
  co_await port.call_on(reader, std::move(deliver));
}

Fetcher::Fetcher(ShardService& here) : here_{here}, wait_{std::make_unique<Wait>(here.core().runtime.executor)} {}

Fetcher::~Fetcher() { TAILRACE_CHECK(!wait_->busy, "a fetcher goes away after its fetch has answered"); }

void Fetcher::cancel() {
  wait_->cancelled = true;
  if (wait_->local) wait_->local->cancel();
  if (wait_->remote && wait_->remote->arrived) {
    wait_->remote->arrived = nullptr;  // an answer under way is dropped
    wait_->arrived.notify_all();
  }
}

void Fetcher::reset() { wait_->cancelled = false; }

Task<Answer<FetchReply>> Fetcher::fetch(FetchRequest request) {
  ShardCore& core = here_.core();
  CallGuard guard{core, &ShardCore::fetches};
  if (auto fine = guard.admitted(); !fine) {
    core.count_refusal(fine.error());
    co_return std::unexpected(std::move(fine).error());
  }
  if (wait_->busy) co_return refuse(Errc::invalid_argument, "a fetcher carries one fetch at a time");
  if (wait_->cancelled) co_return refuse(Errc::cancelled);
  wait_->busy = true;
  Answer<FetchReply> answer = refuse(Errc::internal);
  ShardIndex owner = core.home({request.topic, request.partition});
  if (owner == core.index) {
    OwnerWait local;
    wait_->local = &local;
    answer = co_await core.fetch(std::move(request), local);
    wait_->local = nullptr;
  } else {
    answer = co_await core.fetch_elsewhere(owner, std::move(request), *wait_);
  }
  wait_->busy = false;
  if (!answer && answer.error().code != Errc::cancelled) core.count_refusal(answer.error());
  co_return answer;
}

Task<Answer<FetchReply>> ShardCore::fetch_elsewhere(ShardIndex owner, FetchRequest request, Fetcher::Wait& wait) {
  auto remote = std::make_shared<RemoteWait>();
  remote->arrived = &wait.arrived;
  wait.remote = remote;
  ShardCore& there = core_of(owner);
  auto begin = [&there, &request, remote, here = index] {
    there.background.spawn(there.fetch_for(here, std::move(request), remote));
  };
  co_await port.call_on(owner, std::move(begin));
  while (remote->arrived && !remote->reply) co_await wait.arrived.wait();
  wait.remote.reset();
  if (!remote->arrived) {
    // The owner is told, so that its half ends now and not with its deadline.
    background.spawn(cancel_there(owner, std::move(remote)));
    co_return refuse(Errc::cancelled);
  }
  co_return std::move(*remote->reply);
}

Task<void> ShardCore::cancel_there(ShardIndex owner, std::shared_ptr<RemoteWait> wait) {
  auto cancel = [&wait] { wait->owner.cancel(); };
  co_await port.call_on(owner, std::move(cancel));
}

}  // namespace tailrace::broker::service
