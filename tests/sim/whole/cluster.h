#pragma once
/// The simulated cluster while a seed runs. What a seed can do to it stands in faults.cc, what keeps it going (restarts, the members of a
/// partition) in members.cc, what must hold in every step in invariants.cc, and what must hold in the end in verdict.cc.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/whole/world.h"

namespace tailrace::broker::sim::whole {

using namespace std::chrono_literals;

inline constexpr Duration kTick = 5ms;
inline constexpr std::string_view kTopic = "events";

class World {
 public:
  explicit World(const Plan& plan);
  Outcome outcome();
 private:
  [[nodiscard]] bool fine() const { return violation_.empty(); }
  void violate(std::string what);
  [[nodiscard]] bool may(FaultClass fault) const { return ((plan_.faults >> static_cast<unsigned>(fault)) & 1U) != 0; }
  [[nodiscard]] int count() const { return plan_.nodes; }
  Node& node(int i) { return *nodes_[static_cast<std::size_t>(i)]; }
  int any() { return static_cast<int>(faults_.below(static_cast<std::uint64_t>(count()))); }
  Node* serving(int i) { return node(i).serving() && !node(i).paused && joined_.contains(i) ? &node(i) : nullptr; }
  [[nodiscard]] PartitionId partition(std::int32_t i) const { return {clients_.topic, PartitionIndex{i}}; }

  // what the seed says: world.cc
  NetworkOptions network_options();
  NodeOptions node_options();
  void draw_rates();
  bool draw(FaultClass fault);

  // beginning: world.cc
  bool set_up();
  void boot(int i, DiskImage image);
  /// As the cluster's controller will: every node hears of the topic, its id and who votes.
  void host(int i);

  // time: world.cc
  void post(int from, const service::PeerMessage& message);
  void run_to(Instant until);
  template <class Condition>
  bool run_until(Condition met, Duration limit) {
    Instant end = now_ + limit;
    while (!met()) {
      if (now_ >= end || !fine()) return false;
      run_to(now_ + kTick);
    }
    return true;
  }
  void step(bool more);

  // faults: faults.cc
  void draw_faults();
  static void ease(Node& node);
  enum class Death { kill, power_cut, stop };
  void die(int i, Death how);
  /// Another directory under the same node id; members are changed one after the other until it has taken the place of the old one.
  void replace(int i);
  void begin_anew(int i);
  void rot(int i);
  void repair();
  void transfer();
  void advance_log_start();

  // keeping the cluster up: members.cc
  void manage_nodes();
  [[nodiscard]] bool is_current(const raft::ReplicaId& id);
  Node* leader_of(std::int32_t p);
  /// What is next to be done so that exactly the present directories vote; none: nothing, or nobody leads.
  std::optional<raft::MembershipChange> next_change(std::int32_t p);
  [[nodiscard]] bool members_settled();
  void manage_members();

  // a topic that comes and goes: topics.cc
  void manage_topics();
  void tell_of_passing(Node& node, bool to_delete);
  void write_to_passing(Node& node);
  void check_gone();

  // invariants: invariants.cc
  void look();
  void note_durable(Node& node, const PartitionId& of);
  /// What a leader takes for committed is on the disks of a quorum, whatever has died since.
  void look_at_quorum(const Node& node, std::int32_t p, const raft::Replica& leading);
  void look_at(Node& node, std::int32_t p, const service::ReplicatedPartition& replicated);
  void count_lost_life(Node& node);

  // the end: verdict.cc
  void heal();
  static std::string text(LogPosition at) { return fmt::format("{}.{}", at.offset.value(), at.sub); }
  std::string state_of(Node* leader, Node* node, std::int32_t p);
  [[nodiscard]] std::string unsettled();
  void settle();
  void drain();
  /// Batch by batch: base offset and checksum of all its bytes.
  using Batches = std::map<Offset, std::uint32_t>;
  static Task<void> read_all(log::PartitionPtr log, Batches* into, std::string* error);
  void compare_replicas();
  void judge();

  Plan plan_;
  Random topology_, faults_, disks_;
  std::string segment_bytes_ = fmt::format("{}KiB", 4 << topology_.below(5));
  Instant now_{};
  bool healed_ = false;
  std::string violation_{};
  Outcome out_{};
  history::History history_{};
  Network network_;
  ClientContext clients_;
  std::vector<std::unique_ptr<Node>> nodes_{};
  std::vector<raft::ReplicaId> voters_{};  // of the beginning
  std::set<int> joined_{};                 // know the topic
  std::set<int> hosting_{};                // are being told of it
  struct Passing {
    TopicId id{};
    std::vector<raft::ReplicaId> voters{};
    Instant until{};
    std::set<std::pair<int, std::uint64_t>> busy{};  // nodes in a life that are being told
  };
  std::optional<Passing> passing_{};
  std::vector<TopicId> gone_{};            // deleted everywhere
  int rotten_ = -1;                        // whose disk has flipped bits; one at a time
  std::array<unsigned, static_cast<std::size_t>(FaultClass::count_)> rates_{};
  std::vector<std::unique_ptr<Producer>> producers_{};
  std::vector<std::unique_ptr<Reader>> readers_{};
  std::vector<std::unique_ptr<Surveyor>> surveyors_{};
  struct Seen {
    Offset high_watermark{}, log_start{};
  };
  std::map<std::tuple<int, std::uint64_t, std::int32_t>, Seen> seen_{};
  std::map<std::tuple<std::int32_t, std::int32_t, raft::DirectoryId>, LogPosition> durable_{};  // when it was last seen, also of the dead
  std::map<std::tuple<int, std::uint64_t, std::int32_t>, Instant> leads_damaged_{};  // since
  std::map<std::pair<std::int32_t, LeaderEpoch>, std::pair<int, std::uint64_t>> leaders_{};
};

}  // namespace tailrace::broker::sim::whole
