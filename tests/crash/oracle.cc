#include "tests/crash/oracle.h"

#include <fmt/core.h>

#include <algorithm>

namespace tailrace::broker::crash {

std::string name_of(const PartitionId& id) { return fmt::format("p{}", id.index.value()); }

PartitionOracle& Oracle::partition(PartitionId id) {
  if (auto found = partitions.find(id); found != partitions.end()) return found->second;
  return partitions.emplace(id, PartitionOracle{id, history.key(name_of(id))}).first->second;
}

PartitionOracle* Oracle::find(const PartitionId& id) {
  auto found = partitions.find(id);
  return found == partitions.end() ? nullptr : &found->second;
}

void Oracle::forget(PartitionId id) {
  auto found = partitions.find(id);
  if (found == partitions.end()) return;
  found->second = PartitionOracle{id, history.key(fmt::format("{}#{}", name_of(id), ++generation))};
  std::erase_if(sequences, [&](const auto& entry) { return entry.first.second == id; });
}

Oracle Oracle::fork() const {
  Oracle out;
  out.partitions = partitions;
  out.sequences = sequences;
  out.next_counter = next_counter;
  out.generation = generation;
  out.wall = wall;
  for (std::size_t key = 0; key < history.keys(); ++key) (void)out.history.key(history.key_name(static_cast<std::uint32_t>(key)));
  return out;
}

std::uint64_t PartitionOracle::push(Operation operation) {
  operation.number = next_number_++;
  open_.push_back(std::move(operation));
  return open_.back().number;
}

void PartitionOracle::apply(Log& log, const Operation& operation) {
  if (operation.batch) {
    log.push_back(operation.batch);
  } else {
    while (!log.empty() && log.back()->base() >= operation.cut) log.pop_back();
  }
}

void PartitionOracle::settle_front() {
  const Operation& operation = open_.front();
  apply(settled_, operation);
  // A record of a term is durable only with the term; its vote then is whatever it was.
  if (operation.batch && operation.batch->header.leader_epoch > hard.term) hard = {operation.batch->header.leader_epoch, std::nullopt};
  open_.pop_front();
}

void PartitionOracle::settle(std::uint64_t number) {
  while (!open_.empty() && open_.front().number <= number) settle_front();
}

bool PartitionOracle::truncation_open() const {
  return std::ranges::any_of(open_, [](const Operation& o) { return !o.batch; });
}

void PartitionOracle::settle_to(Offset end) {
  if (truncation_open()) return;
  while (!open_.empty() && end_of(settled_) < end) settle_front();
}

Log PartitionOracle::asked() const {
  Log log = settled_;
  for (const auto& operation : open_) apply(log, operation);
  return log;
}

Offset PartitionOracle::asked_end() const { return end_of(asked()); }

BatchPtr PartitionOracle::known(Offset base, Bytes bytes) const {
  auto at = std::ranges::lower_bound(settled_, base, {}, [](const BatchPtr& b) { return b->base(); });
  if (at != settled_.end() && (*at)->base() == base && std::ranges::equal((*at)->bytes, bytes)) return *at;
  for (const auto& operation : open_) {
    if (operation.batch && operation.batch->base() == base && std::ranges::equal(operation.batch->bytes, bytes)) return operation.batch;
  }
  return nullptr;
}

BatchPtr PartitionOracle::settled_after(Offset offset) const {
  auto at = std::ranges::find_if(settled_, [&](const BatchPtr& b) { return b->next() > offset; });
  return at == settled_.end() ? nullptr : *at;
}

void PartitionOracle::allow_cut(Offset end) {
  while (!settled_.empty() && settled_.back()->next() > end) settled_.pop_back();
}

std::string PartitionOracle::accept(const Log& found, Offset from) {
  auto visible = [&](const Log& log) {
    auto first = std::ranges::find_if(log, [&](const BatchPtr& b) { return b->next() > from; });
    return std::span{first, log.end()};
  };
  auto equal = [&](std::span<const BatchPtr> expected) { return std::ranges::equal(expected, found); };
  Log log = settled_;
  for (std::size_t k = 0;; ++k) {
    if (equal(visible(log))) {
      settled_ = std::move(log);
      open_.clear();
      return {};
    }
    if (k == open_.size()) break;
    apply(log, open_[k]);
  }
  auto range = [](std::span<const BatchPtr> batches) {
    if (batches.empty()) return std::string{"nothing"};
    return fmt::format("{} batches [{}, {})", batches.size(), batches.front()->base().value(), batches.back()->next().value());
  };
  auto must = visible(settled_);
  std::size_t same = static_cast<std::size_t>(std::ranges::mismatch(must, found).in1 - must.begin());
  std::string lost = same < must.size() ? fmt::format("; acknowledged offset {} is not what was stored there", must[same]->base().value()) : "";
  return fmt::format("{}: recovered {} from {}, but {} is settled and {} operations are open{}", name_of(id_), range(found), from.value(),
                     range(must), open_.size(), lost);
}

}  // namespace tailrace::broker::crash
