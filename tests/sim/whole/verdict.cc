// All is healed: within a bound everything settles, the replicas agree, and the history is checked.
#include "base/crc32c.h"
#include "tests/sim/whole/cluster.h"
#include "tests/support/history_checker.h"

namespace tailrace::broker::sim::whole {
namespace {

constexpr Duration kSettleMax = 180s;  // of virtual time, once all is healed

}  // namespace

void World::heal() {
  healed_ = true;
  network_.heal();
  network_.set_options({.delay_max = 5ms});
  if (rotten_ >= 0) repair();
  for (auto& node : nodes_) {
    node->paused = false;
    if (!node->up()) continue;
    ease(*node);
    node->machine().disk.clear_faults();
  }
}

std::string World::state_of(Node* leader, Node* node, std::int32_t p) {
  const raft::Replica& leading = leader->replica(partition(p))->replica();
  std::string out = fmt::format("node {} leads term {}, log {} to {}, commit {}", leader->index(), leading.term().value(), text(leading.log().start()),
                                text(leading.log().end()), text(leading.commit()));
  for (const raft::Progress& member : leading.progress()) {
    out += fmt::format("; to node {}{}: state {}, match {}, next {}, boundary {}, paused {}, reading {}", member.id.node.value() - 1, is_current(member.id) ? "" : " (gone)",
                       static_cast<int>(member.state), text(member.match), text(member.next), member.boundary, member.paused, member.reading);
  }
  if (service::ReplicatedPartition* other = node ? node->replica(partition(p)) : nullptr) {
    const raft::Replica& replica = other->replica();
    out += fmt::format("; node {}: term {}, {}, log {} to {}, commit {}, flushed {}, suspicion {}{}{}", node->index(), replica.term().value(), raft::name_of(replica.role()),
                       text(replica.log().start()), text(replica.log().end()), text(replica.commit()), text(replica.flushed()),
                       static_cast<int>(replica.hard_state().suspicion), other->failed() ? ", failed" : "", other->busy() ? ", busy" : "");
  }
  return out;
}

std::string World::unsettled() {
  for (auto& node : nodes_) {
    if (!node->serving() || !joined_.contains(node->index())) return fmt::format("node {} does not serve", node->index());
  }
  for (std::int32_t p = 0; p < plan_.partitions; ++p) {
    Node* leader = leader_of(p);
    if (!leader) {
      std::string out = fmt::format("nobody leads partition {}", p);
      for (auto& node : nodes_) {
        service::ReplicatedPartition* other = node->replica(partition(p));
        if (!other) continue;
        const raft::Replica& replica = other->replica();
        out += fmt::format("; node {}: term {}, {}, log {} to {}, commit {}, flushed {}, suspicion {}{}{}", node->index(), replica.term().value(), raft::name_of(replica.role()),
                           text(replica.log().start()), text(replica.log().end()), text(replica.commit()), text(replica.flushed()),
                           static_cast<int>(replica.hard_state().suspicion), other->failed() ? ", failed" : "", other->busy() ? ", busy" : "");
        for (const raft::Member& member : replica.members().members()) out += fmt::format(" {}{}{}", member.id.node.value() - 1, member.voter ? "" : "?", is_current(member.id) ? "" : "x");
        out += fmt::format(" last term {}", replica.log().last_term().value());
      }
      return out;
    }
    if (auto change = next_change(p)) {
      return fmt::format("the members of partition {} are not those that are there (change {} of node {}): {}", p, static_cast<int>(change->kind), change->id.node.value() - 1,
                         state_of(leader, serving(change->id.node.value() - 1), p));
    }
    const raft::Replica& leading = leader->replica(partition(p))->replica();
    if (leading.commit() != leading.log().end()) return fmt::format("partition {} is not committed to its end", p);
    for (auto& node : nodes_) {
      service::ReplicatedPartition* replica = node->replica(partition(p));
      bool caught_up = replica && replica->replica().commit() == leading.commit() && replica->replica().flushed() == leading.commit();
      if (!caught_up) return fmt::format("node {} does not catch up with partition {}: {}", node->index(), p, state_of(leader, node.get(), p));
    }
  }
  if (passing_) return "a topic is not deleted everywhere";
  for (auto& producer : producers_) {
    if (!producer->idle()) return "a producer is not answered";
  }
  return {};
}

void World::settle() {
  Instant end = now_ + kSettleMax;
  std::string why = "it was not looked";
  while (fine() && now_ < end && !(why = unsettled()).empty()) step(false);
  if (fine() && !why.empty()) violate("all is healed, and " + why);
}

void World::drain() {
  for (auto& reader : readers_) reader->begin_final();
  Instant end = now_ + kSettleMax;
  auto done = [&] {
    for (std::int32_t p = 0; p < plan_.partitions; ++p) {
      Node* leader = leader_of(p);
      if (!leader || !readers_[static_cast<std::size_t>(p)]->at_end(leader->replica(partition(p))->log()->high_watermark())) return false;
    }
    return true;
  };
  while (fine() && !done()) {
    if (now_ >= end) return violate("the final reads do not end");
    step(false);
  }
}

Task<void> World::read_all(log::PartitionPtr log, Batches* into, std::string* error) {
  Offset at = std::max(log->log_start(), Offset{0}), end = log->high_watermark();
  while (at < end) {
    auto read = co_await log->read_replica(at, end, 64 * limits::kKiB);
    if (!read || read->batches.empty()) {
      *error = read ? "nothing is read" : read.error().detail;
      co_return;
    }
    Offset base = read->begin;
    for (const log::ReplicaBatch& batch : read->batches) {
      auto header = read_batch_header(batch.bytes.bytes(), batch.bytes.length);
      base = header ? header->base_offset : base;
      (*into)[base] = crc32c(batch.bytes.bytes());
    }
    at = read->end;
  }
}

void World::compare_replicas() {
  for (std::int32_t p = 0; p < plan_.partitions && fine(); ++p) {
    Batches reference;
    int of = -1;
    for (auto& node : nodes_) {
      service::ReplicatedPartition* replicated = node->replica(partition(p));
      if (!replicated) return violate(fmt::format("node {} has no partition {}", node->index(), p));
      Batches mine;
      std::string error;
      bool ended = node->machine().loop.run(read_all(replicated->log(), &mine, &error), 1min);
      if (!ended || !error.empty()) return violate(fmt::format("node {}: partition {} cannot be read: {}", node->index(), p, error));
      if (of < 0) {
        reference = std::move(mine);
        of = node->index();
        continue;
      }
      for (const auto& [offset, crc] : mine) {
        auto known = reference.find(offset);
        bool differs = known != reference.end() ? known->second != crc : !reference.empty() && offset > reference.begin()->first;
        if (differs) return violate(fmt::format("nodes {} and {} differ in partition {} at offset {}", of, node->index(), p, offset.value()));
      }
    }
  }
}

void World::judge() {
  for (auto& producer : producers_) {
    out_.coverage.acknowledged += producer->acknowledged();
    out_.coverage.duplicates += producer->duplicates();
    out_.operations += producer->acknowledged();
  }
  for (auto& reader : readers_) out_.coverage.polls += reader->polls();
  out_.operations += out_.coverage.polls;
  for (auto& surveyor : surveyors_) out_.operations += surveyor->answers();
  if (!fine()) return;
  history::Verdict verdict = history::check(history_);
  if (verdict.fatal() > 0) violate("the history: " + verdict.summary());
}

}  // namespace tailrace::broker::sim::whole
