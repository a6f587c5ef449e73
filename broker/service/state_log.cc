#include "service/state_log.h"

#include <fmt/format.h>

#include <algorithm>

#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "io/wait.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
namespace {
constexpr std::size_t kReplayBytes = 1 * limits::kMiB;
}

Answer<void> StateLog::usable() const {
  if (core_.stopping) return refuse(Errc::shutting_down);
  if (!slot_ || slot_->removing) return refuse(Errc::no_such_topic, "it was deleted");
  return {};
}

Task<Answer<void>> StateLog::open() {
  if (core_.stopping || !core_.catalog) co_return refuse(Errc::shutting_down);
  cluster::TopicPointer topic = core_.catalog->find(id_.topic);
  if (!topic || !topic->has(id_.index)) co_return refuse(Errc::no_such_topic, "it was deleted");
  slot_ = core_.slot_of(id_, topic);
  SlotUse use{slot_};
  co_return co_await core_.open(*slot_);
}

Task<Answer<void>> StateLog::replay(const Visit& visit) {
  if (auto fine = usable(); !fine) co_return fine;
  SlotUse use{slot_};
  if (auto opened = co_await core_.open(*slot_); !opened) co_return opened;
  if (!slot_->replicated->serving()) co_return std::unexpected(Refusal{slot_->replicated->not_leader()});
  if (auto leads = co_await slot_->replicated->confirm_leadership(); !leads) co_return std::unexpected(from_log(std::move(leads).error()));
  log::PartitionPtr log = slot_->log;
  if (!slot_->replicated->alone()) term_ = log->term();
  Offset at = log->log_start();
  while (at < log->high_watermark()) {
    auto read = co_await log->read(at, {.bytes_max = kReplayBytes});
    if (!read) co_return std::unexpected(from_log(std::move(read).error()));
    if (read->batches.empty()) co_return refuse(Errc::corrupt, fmt::format("offset {} of the broker's own topic cannot be read", at.value()));
    for (const Slice& batch : read->batches) {
      auto reader = codec::BatchReader::open(batch.bytes());
      if (!reader) co_return refuse(Errc::corrupt, std::move(reader).error().detail);
      codec::RecordView record;
      while (reader->next(record)) {
        if (record.offset < at) continue;
        if (auto fine = visit(record); !fine) co_return std::unexpected(Refusal{std::move(fine).error()});
      }
      if (const auto& error = reader->error()) co_return refuse(Errc::corrupt, error->detail);
    }
    at = read->next;
    co_await yield_to(core_.runtime.executor);
  }
  co_return Answer<void>{};
}

Task<Answer<Offset>> StateLog::append(std::vector<StateRecord> records) {
  if (auto fine = usable(); !fine) co_return std::unexpected(std::move(fine).error());
  SlotUse use{slot_};
  WallTime now = core_.runtime.clock.wall();
  codec::BatchBuilder builder{{.bytes_max = std::min<std::size_t>(slot_->topic->config.message_bytes_max, core_.log->batch_bytes_max())}};
  for (const StateRecord& record : records) {
    codec::RecordInput input{.timestamp = std::max<std::int64_t>(now.time_since_epoch().count(), 0), .key = Bytes{record.key}};
    if (record.value) input.value = Bytes{*record.value};
    if (auto added = builder.add(input); !added) co_return std::unexpected(Refusal{std::move(added).error()});
  }
  auto batch = builder.finish();
  if (!batch) co_return std::unexpected(Refusal{std::move(batch).error()});
  auto header = read_batch_header(batch->bytes(), batch->length);
  if (!header) co_return std::unexpected(Refusal{std::move(header).error()});
  DoorTicket ticket{slot_->door};
  while (!ticket.my_turn()) co_await ticket.moved();
  if (!slot_->log) {
    if (auto opened = co_await core_.open(*slot_); !opened) co_return std::unexpected(std::move(opened).error());
  }
  Instant give_up = core_.runtime.clock.now() + limits::kAppendWaitMax;
  for (;;) {
    if (auto fine = usable(); !fine) co_return std::unexpected(std::move(fine).error());
    if (!slot_->replicated->leads() || (term_ && *term_ != slot_->log->term())) co_return std::unexpected(Refusal{slot_->replicated->not_leader()});
    auto appended = slot_->replicated->append(*batch, *header, now);
    if (appended) co_return appended->next_offset;
    if (appended.error().code != Errc::no_credit || core_.runtime.clock.now() >= give_up) co_return std::unexpected(from_log(std::move(appended).error()));
    bool room = co_await io::WaitUntil{core_.log->pressure(), core_.runtime, give_up};
    (void)room;  // tried once more either way
  }
}

Task<Answer<void>> StateLog::committed(Offset end) {
  if (!slot_ || !slot_->replicated) co_return refuse(Errc::outcome_unknown, "the broker stopped before it was known to be durable");
  SlotUse use{slot_};
  std::shared_ptr<ReplicatedPartition> replicated = slot_->replicated;
  if (auto durable = co_await replicated->committed(end); !durable) {
    co_return refuse(Errc::outcome_unknown, fmt::format("it was not known to be durable: {}", durable.error().detail));
  }
  co_return Answer<void>{};
}

Task<Answer<void>> StateLog::cut(Offset before) {
  if (auto fine = usable(); !fine) co_return fine;
  SlotUse use{slot_};
  if (!slot_->replicated) co_return refuse(Errc::shutting_down);
  auto cut = co_await slot_->replicated->advance_log_start(before);
  if (!cut) co_return std::unexpected(from_log(std::move(cut).error()));
  co_return Answer<void>{};
}

Offset StateLog::end() const { return slot_ && slot_->log ? slot_->log->log_end() : Offset{0}; }

}  // namespace tailrace::broker::service
