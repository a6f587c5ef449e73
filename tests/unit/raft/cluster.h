#pragma once
/// A few replicas of one log in memory: each with a disk that forgets what was not flushed, links that lose, delay, duplicate
/// and reorder, producers that resend, and the invariants of Raft looked at after every step. From one seed; no real time.
///
///   Cluster world{{.nodes = 3}};
///   int leader = world.await_leader();
///   auto send = world.produce(leader);
///   world.run(200ms);
///   EXPECT_TRUE(world.acknowledged(send));
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "raft/replica.h"

namespace tailrace::broker::raft::test {

/// An entry as a log holds it. `chain` is a hash over it and all before it: equal chains are equal logs.
struct Entry {
  LogPosition begin{};
  LogPosition end{};
  LeaderEpoch term{};
  bool is_mark = false;
  Mark mark{};
  Membership members{};
  int producer = -1;
  int sequence = 0;
  std::uint64_t value = 0;
  std::uint64_t chain = 0;
};

/// The last five batches of each producer, as the broker keeps them (R12): sequence and end position.
using Producers = std::map<int, std::deque<std::pair<int, LogPosition>>>;

/// A log with what belongs to it; once as the node sees it, once as its disk does.
struct Image {
  HardState hard{};
  LogPosition start{};
  LeaderEpoch start_term{};
  std::uint64_t start_chain = 0;
  Membership start_members{};
  Producers start_producers{};
  std::vector<Entry> entries{};
  LogPosition commit{};
  Offset log_start{};

  [[nodiscard]] LogPosition end() const { return entries.empty() ? start : entries.back().end; }
  [[nodiscard]] LeaderEpoch last_term() const { return entries.empty() ? start_term : entries.back().term; }
  [[nodiscard]] std::uint64_t last_chain() const { return entries.empty() ? start_chain : entries.back().chain; }
  [[nodiscard]] std::optional<std::uint64_t> chain_at(LogPosition at) const;
  [[nodiscard]] const Entry* ending_at(LogPosition at) const;
  [[nodiscard]] std::size_t index_from(LogPosition begin) const;  // first entry that begins at or after it
  [[nodiscard]] Producers producers_at(LogPosition at) const;
  void truncate(LogPosition to);
  void trim(LogPosition to);
  void append(Entry entry);
};

struct Write {
  enum class Kind { hard_state, entry, truncate, trim, install, checkpoint, log_start } kind{};
  HardState hard{};
  std::uint64_t generation = 0;
  Entry entry{};
  LogPosition position{};
  Offset log_start{};
  std::shared_ptr<Image> image{};
  void apply(Image& to) const;
};

/// What the disk has done and the replica has not heard yet.
struct Report {
  std::optional<std::uint64_t> generation{};
  std::optional<std::pair<LogPosition, LeaderEpoch>> durable{};
  std::optional<LogPosition> installed{};
};

struct SnapshotCargo {
  Snapshot snapshot{};
  Producers producers{};
  std::uint64_t chain = 0;
};
struct Packet {
  ReplicaId from{};
  ReplicaId to{};
  std::uint64_t incarnation = 0;  // of the sender
  Instant at{};
  std::variant<Message, HeartbeatFact, HeartbeatReply, SnapshotCargo> body{};
  std::vector<Entry> batches{};
};

/// Which checks may find something. `all`: also Replica::check_invariants, which stops the process. `history`: only what clients
/// see (acknowledgements, confirmed ends, what is committed where, whether work goes on) and leader completeness.
enum class Checks { all, cluster, history };

struct Options {
  int nodes = 3;
  int voters = 0;  // 0: all
  std::uint64_t seed = 1;
  ReplicaOptions replica{.election_timeout_min = std::chrono::milliseconds{300}, .election_timeout_max = std::chrono::milliseconds{600},
                         .report_wait_max = std::chrono::seconds{10}, .run_bytes_max = 4'000, .window_bytes = 16'000};
  Duration heartbeat = std::chrono::milliseconds{50};
  Duration step = std::chrono::milliseconds{5};
  Duration delay_max = std::chrono::milliseconds{0};
  unsigned drop_percent = 0;
  unsigned duplicate_percent = 0;
  unsigned late_percent = 0;    // delayed by up to two seconds
  unsigned slow_read_percent = 0;
  unsigned flush_percent = 100;  // per node and step; otherwise part of what waits, or nothing
  unsigned report_percent = 100;  // what the disk has done is told in a step; otherwise part of it, or nothing
  Checks checks = Checks::all;
};

/// A batch that somebody wants to have acknowledged.
struct Sent {
  int node = -1;
  std::uint64_t incarnation = 0;
  LeaderEpoch term{};
  int producer = -1;
  int sequence = 0;
  LogPosition end{};
  std::uint64_t value = 0;
};

struct Node {
  ReplicaId id{};
  std::uint64_t boots = 0;
  bool up = false;
  bool paused = false;
  bool hold_flush = false;     // nothing becomes durable
  bool hold_reports = false;   // it does, and nobody is told
  Image disk{};
  Image seen{};                // disk and queue
  Producers kept_producers{};  // only with a planted bug
  std::deque<Write> queue{};
  std::deque<Report> reports{};
  std::unique_ptr<Replica> replica{};
  Instant heartbeat_at{};
  std::vector<ReadEntries> reads{};  // not answered yet
  LogPosition commit_told{};
  std::set<ReplicaId> snapshot_wanted{};
  Instant snapshot_retry{};
};

class Cluster {
 public:
  explicit Cluster(Options options);

  // Time.
  void step();
  void run(Duration duration);
  [[nodiscard]] Instant now() const { return now_; }

  // Nodes.
  [[nodiscard]] Node& node(int i) { return nodes_[static_cast<std::size_t>(i)]; }
  [[nodiscard]] Replica& replica(int i) { return *node(i).replica; }
  [[nodiscard]] int size() const { return static_cast<int>(nodes_.size()); }
  [[nodiscard]] int index_of(const ReplicaId& id) const;
  int add_node();                                  // empty disk, no members known
  void crash(int i, std::size_t writes_kept = 0);  // of what waits to be flushed, in order
  void start(int i);
  void pause(int i, bool paused) { node(i).paused = paused; }
  /// A disk lost its durable tail from `to` on, or cut it; `floor` is what is still readable of it.
  void lose_tail(int i, LogPosition to, Suspicion suspicion, LogEnd floor = {});
  /// The node comes back with an empty disk: another directory, the same node.
  void replace_directory(int i, bool keep_directory_id = false);
  void flush(int i, std::size_t writes);
  void report(int i);

  // Links: from -> to.
  void cut(int from, int to, bool cut = true);
  void isolate(int i);
  void heal();
  [[nodiscard]] std::vector<Packet>& packets() { return packets_; }
  void deliver(Packet packet);
  void inject(int to, const Message& message, std::vector<Entry> batches = {});

  // Leading.
  [[nodiscard]] int leader() const;  // that serves, of the highest term; -1: none
  int await_leader(Duration wait = std::chrono::seconds{20});
  /// A batch of `records` records, with its producer's next sequence; none: that node does not take it.
  std::optional<Sent> produce(int i, int records = 1);
  std::optional<Sent> produce_as(int i, int producer, int sequence, int records = 1);
  [[nodiscard]] bool acknowledged(const std::optional<Sent>& sent);
  Verdict change(int i, ChangeKind kind, const ReplicaId& id);
  Verdict transfer(int i, int to);
  Verdict advance_log_start(int i, Offset start);
  void campaign(int i);
  void confirm(int i);
  bool await(const std::function<bool()>& condition, Duration wait = std::chrono::seconds{20});

  // Verdicts.
  [[nodiscard]] const std::string& violation() const { return violation_; }
  void violate(std::string what);    // a client could see it
  void suspect(std::string what);    // only this cluster can: a violation unless the history alone is asked
  [[nodiscard]] std::uint64_t hash() const { return hash_; }  // over all actions and packets so far
  [[nodiscard]] LogPosition committed() const { return committed_.empty() ? LogPosition{} : committed_.rbegin()->first; }
  [[nodiscard]] std::uint64_t acknowledgements() const { return acknowledged_.size(); }
  /// Every acknowledged batch once in the log of the serving leader, and nothing twice.
  void check_final(int leader);
  void expect_halt(int i) { may_halt_.insert(i); }
  [[nodiscard]] Random& random() { return random_; }
  struct Counters {
    std::uint64_t elections = 0, truncations = 0, snapshots = 0, member_changes = 0, log_starts = 0, confirmed = 0, runs = 0, duplicates = 0,
                  suspicious = 0, restarts = 0, transfers = 0;
  } counters{};

 private:
  friend class Chaos;
  void drain(int i, Actions& out);
  void act(int i, const Action& action, Actions& out);
  void post(int i, const ReplicaId& to, Packet packet);
  void answer_read(int i, const ReadEntries& read, Actions& out);
  void offer_snapshot(int i, const ReplicaId& to, Actions& out);
  void queue(int i, Write write);
  void note_append(const Entry& entry);
  void note_commit(int i);
  void look_after(int i);
  void trace(int i, const std::string& what) const;  // with TAILRACE_TRACE=1

  bool trace_ = std::getenv("TAILRACE_TRACE") != nullptr;

  Options options_;
  Random random_;
  Random net_;
  Random disk_;
  Instant now_{};
  std::vector<Node> nodes_{};
  std::vector<std::vector<char>> cut_{};
  std::vector<Packet> packets_{};
  std::vector<Entry> incoming_{};  // the batches of the message at hand
  std::shared_ptr<SnapshotCargo> incoming_snapshot_{};
  std::uint64_t next_value_ = 1;
  std::uint8_t next_directory_ = 1;

  void note(std::uint64_t event) { hash_ = (hash_ ^ event) * 0x9e3779b97f4a7c15ULL + (hash_ >> 29U); }
  void check_send(int i, const Message& message);

  std::uint64_t hash_ = 0;
  std::string violation_{};
  std::map<LeaderEpoch, std::pair<ReplicaId, std::uint64_t>> leaders_{};
  std::map<std::pair<LeaderEpoch, LogPosition>, std::uint64_t> chains_{};
  std::map<LogPosition, std::uint64_t> committed_{};     // end -> chain
  std::map<LeaderEpoch, LogPosition> committed_in_{};    // the last that was first seen committed in that term
  std::map<std::pair<int, int>, LogPosition> acknowledged_{};  // producer, sequence -> end
  LogPosition acknowledged_end_{};
  Offset log_start_shown_{};
  struct Confirming {
    std::uint64_t round = 0;
    LogPosition commit{};
    LogPosition acknowledged{};
    Offset log_start{};
    Offset log_start_shown{};
    std::uint64_t incarnation = 0;
    LeaderEpoch term{};
  };
  std::map<int, Confirming> confirming_{};
  std::set<int> may_halt_{};
};

}  // namespace tailrace::broker::raft::test
