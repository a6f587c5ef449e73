/// What is asked of every recovery: see storage.md section 5, "Checks after each".
#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "tests/crash/life.h"

namespace tailrace::broker::crash {

namespace {

std::uint64_t mix(std::uint64_t hash, Bytes bytes) {
  for (std::byte b : bytes) hash = (hash ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3ULL;
  return hash;
}

/// Errors that say "I cannot tell", as against answers that pass for an empty log.
bool is_explicit(Errc code) {
  return code == Errc::corrupt || code == Errc::io_error || code == Errc::newer_format || code == Errc::foreign_data_directory ||
         code == Errc::descriptors_exhausted || code == Errc::unexpected_end;
}

}  // namespace

Recovered Life::verify(const Expectation& expectation) {
  auto out = machine_.loop.run(verify_all(expectation));
  if (!out) {
    violation("verification hangs");
    return {};
  }
  return *out;
}

Task<Recovered> Life::verify_all(Expectation expectation) {
  Recovered out;
  out.opened = true;
  out.report = log_->recovery();
  if (!expectation.damage && (out.report.corrupt > 0 || out.report.damaged_partitions > 0)) {
    violation(fmt::format("an ordinary crash was taken for damage: {} corrupt, {} damaged partitions", out.report.corrupt, out.report.damaged_partitions));
  }
  if (!expectation.damage && out.report.torn > 1) violation(fmt::format("one crash was counted as {} torn tails", out.report.torn));
  for (auto& [id, po] : oracle_.partitions) {
    if (po.create_asked) co_await verify_one(&po, expectation, &out);
  }
  for (const auto& id : log_->stored_partitions()) {
    auto* po = oracle_.find(id);
    if (po == nullptr || !po->create_asked) violation(fmt::format("{} is stored, and nobody created it", name_of(id)));
  }
  co_return out;
}

Task<void> Life::verify_one(PartitionOracle* po, Expectation expectation, Recovered* out) {
  auto opened = co_await log_->open_partition(po->id(), options());
  if (!opened) {
    if (opened.error().code == Errc::no_such_partition) {
      if (po->created && !po->remove_asked) {
        bool cut = expectation.may_cut_acknowledged && out->report.torn > 0;
        if (!cut) violation(fmt::format("{} was created durably and is gone: {}", name_of(po->id()), opened.error().detail));
      } else {
        oracle_.forget(po->id());
      }
      co_return;
    }
    if (!expectation.damage || !is_explicit(opened.error().code)) {
      violation(fmt::format("{} does not open: {}", name_of(po->id()), opened.error().detail));
    }
    ++out->damaged_partitions;
    co_return;
  }
  if (po->removed) violation(fmt::format("{} was removed durably and is back", name_of(po->id())));
  po->created = true;
  po->remove_asked = false;
  open_[po->id()] = *opened;
  co_await verify_contents(po, *opened, expectation, out);
}

Task<void> Life::verify_contents(PartitionOracle* po, log::PartitionPtr partition, Expectation expectation, Recovered* out) {
  std::string name = name_of(po->id());
  bool cut_allowed = expectation.may_cut_acknowledged && out->report.torn > 0;
  Offset start = partition->log_start();
  Offset end = partition->high_watermark();
  std::string damage = partition->stats().damage;
  bool excused = expectation.damage && !damage.empty();
  if (!damage.empty() && !expectation.damage) violation(fmt::format("{} is called damaged after an ordinary crash: {}", name, damage));

  if (start < po->start && !excused && !cut_allowed) violation(fmt::format("{}: log start went back from {} to {}", name, po->start.value(), start.value()));
  if (start > po->start_asked && !excused) violation(fmt::format("{}: log start is {}, and nobody asked for more than {}", name, start.value(), po->start_asked.value()));
  if (partition->log_end() != end) violation(fmt::format("{}: after recovery the end is {} and the high watermark {}", name, partition->log_end().value(), end.value()));

  // A start may raise the term. Within the term that was known the vote stands, and no term comes back.
  HardState hard{partition->term(), log::lone(*partition).vote()};
  bool known_state = hard.term > po->hard.term || (hard.term == po->hard.term && (!po->hard.vote || hard.vote == po->hard.vote));
  if (!known_state && !excused && !cut_allowed) {
    violation(fmt::format("{}: hard state is term {} vote {}, was term {} vote {}", name, hard.term.value(), hard.vote->value(), po->hard.term.value(), po->hard.vote.value_or(NodeId{-1}).value()));
  }

  Log found;
  bool holes = false;
  std::uint64_t content = 0xcbf29ce484222325ULL;
  Offset at = start;
  std::vector<history::History::Read> reads;
  std::uint32_t process = oracle_.next_reader++;
  while (at < end) {
    std::int64_t began = now();
    auto result = co_await partition->read(at, {.bytes_max = 64 * limits::kKiB});
    if (!result) {
      if (!expectation.damage || !is_explicit(result.error().code)) {
        violation(fmt::format("{}: reading {} of [{}, {}) fails: {}", name, at.value(), start.value(), end.value(), result.error().detail));
        co_return;
      }
      holes = true;
      ++out->read_errors;
      // The caller cannot know where the hole ends; the oracle does.
      BatchPtr lost = po->settled_after(at);
      at = lost ? lost->next() : end;
      continue;
    }
    if (result->batches.empty()) {
      violation(fmt::format("{}: nothing at {}, below the high watermark {}", name, at.value(), end.value()));
      co_return;
    }
    for (const Slice& slice : result->batches) {
      auto header = read_batch_header(slice.bytes(), 1 * limits::kMiB);
      BatchPtr known = header && header->total_bytes() == slice.length ? po->known(header->base_offset, slice.bytes()) : nullptr;
      if (!known) {
        violation(fmt::format("{}: a batch at {} that nobody appended there", name, header ? header->base_offset.value() : at.value()));
        co_return;
      }
      bool follows = known->base() == at || (found.empty() && known->base() < at && known->next() > at);
      if (!follows) violation(fmt::format("{}: {} comes where {} should", name, known->base().value(), at.value()));
      for (std::size_t i = 0; i < known->values.size(); ++i) {
        std::int64_t offset = known->base().value() + static_cast<std::int64_t>(i);
        if (offset >= at.value()) reads.push_back({offset, known->values[i]});
      }
      content = mix(content, slice.bytes());
      found.push_back(known);
      at = known->next();
    }
    if (!po->outside_history()) oracle_.history.poll(process, began, now(), po->key(), reads, true);
    reads.clear();
  }
  if (at != end) violation(fmt::format("{}: the batches end at {}, the high watermark is {}", name, at.value(), end.value()));
  if (start == end && !po->outside_history()) {
    oracle_.history.poll(process, now(), now(), po->key(), {}, true);
  }
  if (!po->outside_history()) oracle_.history.end(process, now(), now(), po->key(), end.value(), start.value());
  out->content[po->id()] = content;

  Offset must = po->settled().empty() ? Offset{} : po->settled().back()->next();
  if (holes || !damage.empty()) {
    ++out->damaged_partitions;
    // Every settled record was read or its read failed; and nothing behind the end may be missing without a word.
    if (end < must && damage.empty()) violation(fmt::format("{}: shrank from {} to {} without a word", name, must.value(), end.value()));
    if (!damage.empty()) {
      std::vector<history::Value> values;
      Slice batch = make_batch(po->id(), {}, values);
      auto header = read_batch_header(batch.bytes(), 1 * limits::kMiB);
      if (partition->append(batch, *header, machine_.loop.wall())) violation(fmt::format("{}: a damaged partition takes appends", name));
    }
    co_return;
  }
  if (cut_allowed && end < must) po->allow_cut(end);
  if (std::string wrong = po->accept(found, start); !wrong.empty()) violation(wrong);
  po->start = std::max(po->start, start);
  po->start_asked = std::max(po->start, start);
  verify_producers(*po, *partition, found);
  co_await verify_lookups(po, partition, &found);
}

void Life::verify_producers(PartitionOracle& po, log::Partition& partition, const Log& found) {
  std::map<ProducerId, Log> by_producer;
  for (const auto& batch : found) {
    if (batch->header.producer_id != kNoProducer) by_producer[batch->header.producer_id].push_back(batch);
  }
  for (const auto& [id, batches] : by_producer) {
    std::size_t window = std::min<std::size_t>(batches.size(), limits::kProducerWindowBatches);
    for (std::size_t i = batches.size() - window; i < batches.size(); ++i) {
      auto verdict = partition.judge(batches[i]->header);
      if (verdict.answer != log::ProducerAnswer::duplicate || verdict.base_offset != batches[i]->base()) {
        violation(fmt::format("{}: a retry of offset {} (producer {}, sequence {}) is judged {} at {}", name_of(po.id()), batches[i]->base().value(), id.value(),
                              batches[i]->header.base_sequence, static_cast<int>(verdict.answer), verdict.base_offset.value()));
      }
    }
    BatchHeader next = batches.back()->header;
    next.base_sequence += next.record_count;
    if (auto verdict = partition.judge(next); verdict.answer != log::ProducerAnswer::accept) {
      violation(fmt::format("{}: the next batch of producer {} is judged {}", name_of(po.id()), id.value(), static_cast<int>(verdict.answer)));
    }
  }
  // Clients go on from what is stored: a batch without an answer is sent again when it is not there.
  for (auto& [who, sequence] : oracle_.sequences) {
    if (who.second != po.id()) continue;
    sequence = 0;
    for (const auto& batch : po.settled()) {
      if (batch->header.producer_id == who.first) sequence = batch->header.base_sequence + batch->header.record_count;
    }
  }
}

Task<void> Life::verify_lookups(PartitionOracle* po, log::PartitionPtr partition, const Log* found) {
  if (found->empty()) co_return;
  std::string name = name_of(po->id());
  for (int i = 0; i < 3; ++i) {
    const BatchPtr& aim = (*found)[random_.below(found->size())];
    std::int64_t time = aim->header.max_timestamp;
    auto first = std::ranges::find_if(*found, [&](const BatchPtr& b) { return b->header.max_timestamp >= time; });
    auto answer = co_await partition->find_time(time);
    if (!answer) {
      violation(fmt::format("{}: looking for a time fails: {}", name, answer.error().detail));
    } else if (!*answer || ((*answer)->offset != (*first)->base() && (*answer)->offset != partition->log_start())) {
      violation(fmt::format("{}: time {} is at {}, the index says {}", name, time, (*first)->base().value(), *answer ? (*answer)->offset.value() : -1));
    }
    if (aim->next() <= partition->log_start()) continue;
    Offset from = std::max(partition->log_start(), aim->base() + static_cast<std::int64_t>(random_.below(aim->values.size())));
    auto read = co_await partition->read(from, {.bytes_max = 1});
    if (!read || read->batches.empty() || !std::ranges::equal(read->batches[0].bytes(), Bytes{aim->bytes})) {
      violation(fmt::format("{}: a read from {} does not begin with the batch at {}", name, from.value(), aim->base().value()));
    }
  }
}

Recovered recover_and_verify(const sim::DiskImage& image, const Setup& setup, Oracle& oracle, std::uint64_t seed, const Expectation& expectation) {
  Recovered out;
  sim::DiskImage left;
  {
    Life life{seed, image, setup, oracle};
    if (!life.start()) {
      out.error = life.error();
      if (!expectation.damage || !is_explicit(out.error.code)) {
        oracle.violation(fmt::format("the log does not open: {} {}", static_cast<int>(out.error.code), out.error.detail));
      }
      return out;
    }
    out = life.verify(expectation);
    if (out.damaged_partitions == 0 && expectation.check_use) {
      for (auto& [id, po] : oracle.partitions) {
        if (po.created && !life.append_later(id, {.records = 2})) oracle.violation(fmt::format("{} takes no append after recovery", name_of(id)));
      }
      if (!life.settle()) oracle.violation("an append after recovery is never acknowledged");
      for (auto& [id, po] : oracle.partitions) {
        if (po.created && po.open_operations() > 0) oracle.violation(fmt::format("{}: an append after recovery was not acknowledged", name_of(id)));
      }
      left = life.stop();
    } else {
      left = life.kill();
    }
  }
  if (!oracle.violations.empty()) return out;
  if (expectation.check_twice) {
    // Recovery is a function of the disk: the same image gives the same bytes.
    std::array<std::uint64_t, 2> bytes{};
    for (auto& hash : bytes) {
      Oracle unheard;
      Life alone{seed + 2, image, setup, unheard};
      bool started = alone.start();
      hash = alone.kill().hash();
      if (!started) hash = 0;
    }
    if (bytes[0] == 0 || bytes[0] != bytes[1]) oracle.violation("two recoveries of one image leave different bytes");
  }
  if (expectation.check_use && out.damaged_partitions == 0) {
    Life again{seed + 1, left, setup, oracle};
    if (!again.start()) {
      oracle.violation(fmt::format("the log does not open after a clean stop: {}", again.error().detail));
      return out;
    }
    Expectation calm;
    Recovered second = again.verify(calm);
    if (second.report.frames_applied > 0) oracle.violation(fmt::format("a clean stop left {} frames to replay", second.report.frames_applied));
    if (second.report.torn > 0 && !expectation.damage) oracle.violation("a clean stop left a torn tail");
    (void)again.kill();
  } else if (expectation.check_twice) {
    Life again{seed + 1, left, setup, oracle};
    if (!again.start()) {
      if (!expectation.damage) oracle.violation(fmt::format("a second recovery does not open: {}", again.error().detail));
      return out;
    }
    Expectation same = expectation;
    Recovered second = again.verify(same);
    if (second.content != out.content) oracle.violation("a second recovery reads other bytes than the first");
    (void)again.kill();
  }
  return out;
}

std::vector<std::string> judge_image(const sim::DiskImage& image, const Setup& setup, const Oracle& oracle, std::uint64_t seed,
                                     const Expectation& expectation, Recovered* recovered) {
  Oracle copy = oracle.fork();
  Recovered out = recover_and_verify(image, setup, copy, seed, expectation);
  if (recovered != nullptr) *recovered = std::move(out);
  return copy.violations;
}

}  // namespace tailrace::broker::crash
