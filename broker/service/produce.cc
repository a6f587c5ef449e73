/// The produce path on the owner's shard: door, verdict, append, wait for durability, answer.
#include <fmt/format.h>

#include "io/wait.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
namespace {

Answer<void> check_batch(const ProduceRequest& request, const cluster::Topic& topic) {
  if (topic.config.streams) return refuse(Errc::stream_topic, topic.name);
  const BatchHeader& header = request.header;
  if (header.total_bytes() != request.batch.length || header.record_count < 1 || header.last_offset_delta < 0) {
    return refuse(Errc::invalid_record, "the batch and its header disagree");
  }
  if (header.is_control() || header.is_transactional()) {
    return refuse(Errc::invalid_record, "control and transactional batches are not for producers");
  }
  if (header.has_log_append_time()) {
    return refuse(Errc::invalid_record, "attributes: the append time is the broker's to set");
  }
  if (request.batch.length > topic.config.message_bytes_max) {
    return refuse(Errc::too_large,
                  fmt::format("a batch of {} bytes; topic {} takes {} (message_bytes_max)", request.batch.length, topic.name,
                              topic.config.message_bytes_max),
                  {{"message_bytes_max", fmt::format("{}", topic.config.message_bytes_max)}});
  }
  return {};
}

Refusal refusal_of(const log::ProducerVerdict& verdict, const BatchHeader& header) {
  auto who = fmt::format("producer {} epoch {} sequence {}", header.producer_id.value(), header.producer_epoch.value(), header.base_sequence);
  switch (verdict.answer) {
    case log::ProducerAnswer::accept:
    case log::ProducerAnswer::duplicate: break;
    case log::ProducerAnswer::out_of_order:
      return {Errc::out_of_order_sequence, fmt::format("{}; expected {}", who, verdict.expected_sequence),
              {{"expected_sequence", fmt::format("{}", verdict.expected_sequence)}}};
    case log::ProducerAnswer::fenced: return {Errc::fenced, std::move(who)};
    case log::ProducerAnswer::unknown: return {Errc::unknown_producer, std::move(who)};
    case log::ProducerAnswer::too_old: return {Errc::duplicate_sequence, std::move(who)};
  }
  return {Errc::internal, "a verdict without an answer"};
}

}  // namespace

Task<Answer<ProduceReply>> ShardCore::produce(ProduceRequest request) {
  Instant begun = runtime.clock.now();
  auto found = slot_for({request.topic, request.partition});
  if (!found) co_return std::unexpected(std::move(found).error());
  if (auto fine = check_batch(request, *(*found)->topic); !fine) co_return std::unexpected(std::move(fine).error());
  SlotUse slot{*std::move(found)};

  auto answer = co_await append(*slot, request);
  refresh_window();
  if (answer) {
    ++counters.produces;
    counters.produce_latency.record(runtime.clock.now() - begun);
    if (answer->duplicate) {
      ++slot->counters->duplicates;
    } else {
      ++slot->counters->batches_in;
      slot->counters->records_in += static_cast<std::uint64_t>(request.header.record_count);
      slot->counters->bytes_in += request.batch.length;
    }
  }
  co_return answer;
}

Task<Answer<ProduceReply>> ShardCore::append(PartitionSlot& slot, ProduceRequest& request) {
  const BatchHeader& header = request.header;
  log::PartitionPtr partition;
  log::ProducerVerdict verdict;
  log::Appended appended;
  std::optional<Refusal> refused;
  WallTime now{};
  bool stamps = false;
  bool relaxed = false;
  {
    DoorTicket ticket{slot.door};
    Instant give_up = runtime.clock.now() + limits::kAppendWaitMax;
    if (request.deadline) give_up = std::min(give_up, *request.deadline);
    while (!ticket.my_turn()) co_await ticket.moved();
    if (!slot.log) {
      if (auto opened = co_await open(slot); !opened) co_return std::unexpected(std::move(opened).error());
    }
    partition = slot.log;
    for (;;) {  // from here to the append nothing suspends, unless the WAL has no room
      if (auto fine = admit(slot); !fine) co_return std::unexpected(std::move(fine).error());
      stamps = slot.topic->config.timestamp_type == TimestampType::log_append_time;
      relaxed = slot.topic->config.durability == Durability::relaxed;
      if (request.deadline && runtime.clock.now() >= *request.deadline) {
        co_return refuse(Errc::timeout, "the deadline passed before the batch was appended");
      }
      if (!slot.replicated->leads()) co_return std::unexpected(Refusal{slot.replicated->not_leader()});
      verdict = partition->judge(header);
      if (verdict.answer != log::ProducerAnswer::accept) break;
      if (request.expected_end_offset && partition->log_end() != *request.expected_end_offset) {
        refused = Refusal{Errc::wrong_version,
                          fmt::format("the log ends at {}, not at {}", partition->log_end().value(), request.expected_end_offset->value()),
                          {{"actual_end_offset", fmt::format("{}", partition->log_end().value())}}};
        break;
      }
      now = runtime.clock.wall();
      BatchHeader stored = header;
      if (stamps) {
        stamp_log_append_time(request.batch.mutable_bytes(), now);
        TAILRACE_CO_TRY(stored, read_batch_header(request.batch.bytes(), request.batch.length));
      }
      auto done = slot.replicated->append(request.batch, stored, now);
      if (done) {
        appended = *done;
        break;
      }
      if (done.error().code != Errc::no_credit || runtime.clock.now() >= give_up) {
        co_return std::unexpected(from_log(std::move(done).error()));
      }
      bool room = co_await io::WaitUntil{log->pressure(), runtime, give_up};
      (void)room;  // the append is tried once more either way
    }
  }
  // Whoever comes next is let in now; answers still follow the order of the calls, since each waits for the high watermark
  // to reach where the log ended when it was judged.
  if (verdict.answer == log::ProducerAnswer::duplicate) {
    appended = {verdict.base_offset, verdict.next_offset};
    now = verdict.append_time;
  } else if (verdict.answer != log::ProducerAnswer::accept) {
    refused = refusal_of(verdict, header);
  }
  if (refused) {
    Offset end = partition->log_end();
    // A refusal tells of the log's end and of earlier sequences: it leaves after they are durable. Their own calls report failure.
    // One that was deposed and does not know it may lack what its successor has.
    if (!relaxed) (void)co_await partition->committed(end);
    if (auto leads = co_await slot.replicated->confirm_leadership(); !leads) co_return std::unexpected(from_log(std::move(leads).error()));
    co_return std::unexpected(std::move(*refused));
  }
  if (!relaxed) {
    if (auto durable = co_await partition->committed(appended.next_offset); !durable) {
      Refusal why = from_log(std::move(durable).error());
      // The batch is in the log's memory: whether it reached the disk is not known.
      if (why.code == Errc::shutting_down) why = Refusal{Errc::outcome_unknown, "the broker stopped before the batch was known to be durable"};
      if (why.code == Errc::not_leader) why = Refusal{Errc::outcome_unknown, "leadership was lost before the batch was known to be committed"};
      co_return std::unexpected(std::move(why));
    }
  }
  ProduceReply reply{.base_offset = appended.base_offset, .log_append_time_ms = -1,
                     .duplicate = verdict.answer == log::ProducerAnswer::duplicate};
  if (stamps) reply.log_append_time_ms = now.time_since_epoch().count();
  co_return reply;
}

}  // namespace tailrace::broker::service
