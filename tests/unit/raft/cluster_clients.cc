// What producers, operators and tests ask of a cluster.
#include <algorithm>
#include <utility>

#include "tests/unit/raft/cluster.h"
#include "tests/unit/raft/cluster_text.h"

namespace tailrace::broker::raft::test {

int Cluster::leader() const {
  int best = -1;
  for (int i = 0; i < size(); ++i) {
    const Node& n = nodes_[static_cast<std::size_t>(i)];
    if (!n.up || n.paused || !n.replica->serving()) continue;
    if (best < 0 || n.replica->term() > nodes_[static_cast<std::size_t>(best)].replica->term()) best = i;
  }
  return best;
}

int Cluster::await_leader(Duration wait) {
  static_cast<void>(await([&] { return leader() >= 0; }, wait));
  return leader();
}

std::optional<Sent> Cluster::produce_as(int i, int producer, int sequence, int records) {
  Node& n = node(i);
  if (!n.up || n.replica->can_append() != Verdict::ok) return std::nullopt;
  Producers known = n.seen.producers_at(n.seen.end());
  if (planted(PlantedBug::raft_forget_producers) && n.boots > 1) known.clear();
  if (!n.kept_producers.empty()) known = n.kept_producers;
  auto& window = known[producer];
  for (const auto& [old, end] : window) {
    if (old != sequence) continue;
    ++counters.duplicates;
    const Entry* original = n.seen.ending_at(end);
    return Sent{i, n.boots, n.replica->term(), producer, sequence, end, original ? original->value : 0};
  }
  int expected = window.empty() ? 0 : window.back().first + 1;
  if (sequence != expected && !planted(PlantedBug::raft_forget_producers)) {
    // Only acknowledged batches are followed by the next one: one that is missing on a leader that serves was lost.
    if (sequence > expected && n.replica->serving() && producer >= 0 && acknowledged_.contains({producer, sequence - 1}) &&
        acknowledged_[{producer, sequence - 1}] <= n.replica->commit()) {
      violate(fmt::format("node {} does not know batch {} of producer {}, which was acknowledged", i, sequence - 1, producer));
    }
    return std::nullopt;
  }
  Entry entry{.begin = n.seen.end(), .end = {n.seen.end().offset + records, 0}, .term = n.replica->term(), .producer = producer, .sequence = sequence, .value = next_value_++};
  n.seen.append(entry);
  entry = n.seen.entries.back();
  n.seen.entries.pop_back();
  note_append(entry);
  queue(i, {.kind = Write::Kind::entry, .entry = entry});
  Actions out;
  n.replica->appended(entry.end.offset);
  n.replica->replicate(now_, out);
  drain(i, out);
  return Sent{i, n.boots, entry.term, producer, sequence, entry.end, entry.value};
}

std::optional<Sent> Cluster::produce(int i, int records) {
  if (!node(i).up) return std::nullopt;
  const Producers known = node(i).seen.producers_at(node(i).seen.end());
  auto found = known.find(0);
  return produce_as(i, 0, found == known.end() ? 0 : found->second.back().first + 1, records);
}

/// By the node that took it, as long as it leads: that is who answers the producer.
bool Cluster::acknowledged(const std::optional<Sent>& sent) {
  if (!sent) return false;
  if (auto done = acknowledged_.find({sent->producer, sent->sequence}); done != acknowledged_.end() && done->second == sent->end) return true;
  Node& n = node(sent->node);
  if (!n.up || n.boots != sent->incarnation || n.replica->role() != Role::leader || n.replica->term() != sent->term) return false;
  if (n.replica->commit() < sent->end) return false;
  const Entry* entry = n.seen.ending_at(sent->end);
  if (n.seen.start < sent->end && (!entry || entry->producer != sent->producer || entry->sequence != sent->sequence)) return false;
  auto [known, fresh] = acknowledged_.emplace(std::pair{sent->producer, sent->sequence}, sent->end);
  if (!fresh && known->second != sent->end) violate(fmt::format("batch {} of producer {} acknowledged at two places", sent->sequence, sent->producer));
  acknowledged_end_ = std::max(acknowledged_end_, sent->end);
  return true;
}

Verdict Cluster::change(int i, ChangeKind kind, const ReplicaId& id) {
  Actions out;
  Verdict verdict = replica(i).change_members({kind, id}, now_, out);
  drain(i, out);
  return verdict;
}

Verdict Cluster::transfer(int i, int to) {
  Actions out;
  Verdict verdict = replica(i).transfer(node(to).id, now_, out);
  drain(i, out);
  if (verdict == Verdict::ok) ++counters.transfers;
  return verdict;
}

Verdict Cluster::advance_log_start(int i, Offset start) {
  Actions out;
  Verdict verdict = replica(i).advance_log_start(start, now_, out);
  drain(i, out);
  return verdict;
}

void Cluster::campaign(int i) {
  Actions out;
  replica(i).campaign(now_, out);
  drain(i, out);
}

void Cluster::confirm(int i) {
  Node& n = node(i);
  if (!n.up) return;
  if (confirming_.contains(i) && confirming_[i].term == n.replica->term() && confirming_[i].incarnation == n.boots) return;
  Actions out;
  auto round = n.replica->confirm_leadership(out);
  if (round) {
    confirming_[i] = {*round, n.replica->commit(), acknowledged_end_, n.replica->log_start(), log_start_shown_, n.boots, n.replica->term()};
  }
  drain(i, out);
}

}  // namespace tailrace::broker::raft::test
