#pragma once
/// Replicas of one log, driven by events that another Raft library can be driven by as well (README.md of this folder): there
/// is no time but what an event takes, messages wait in a queue for each direction, and each event ends when nothing moves any more.
///
/// Events, each a line; nodes are numbered from 1:
///   timeout N          an election timeout passes at N, and it stands
///   age N              an election timeout passes at N, and it does not stand
///   check N            N, leading, looks whether a quorum answered since it did so last; a hand-over that is under way ends
///   beat N             N, leading, sends three heartbeats, each answered before the next
///   propose N LABEL    an entry
///   transfer N M       N hands over to M
///   add N M            N takes M in as a learner;  promote, demote, remove N M alike
///   cut N M            messages between N and M are lost, those on their way too;  join N M ends that and `hold`
///   hold N M           messages from N to M wait
///   release N M        ... and arrive;  twice: each two times;  backwards: the last one first;  drop: they are lost
///   heal               every link works, what waits arrives
///   stall N            nothing that N writes becomes durable;  deafen N: it does, and N is not told;  tell N: it is told what is
///                      durable so far, and no more becomes so;  flush N ends all that
///   crash N lost|kept  N stops; what was not durable is lost, or became so although nobody was told
///   start N            N comes back with what is durable
///   compact N          N forgets the entries that it knows to be committed; who needs them from N gets a snapshot of that
///                      place
///
/// A snapshot that brought no answer is given up with the next heartbeat, and asked for again.
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/unit/raft/cluster.h"

namespace tailrace::broker::raft::interop {

using test::Entry;
using test::Image;
using test::Write;

class World {
 public:
  /// `voters` of the nodes are members, the others can be added.
  World(int nodes, int voters);

  /// Carries an event out until nothing moves. False: it is no event, or names no node.
  bool apply(std::string_view line);
  /// One line for each node: what the other library's must equal.
  [[nodiscard]] std::string state() const;

  // For whoever thinks of events.
  [[nodiscard]] int size() const { return static_cast<int>(nodes_.size()); }
  [[nodiscard]] bool up(int n) const { return at(n).replica != nullptr; }
  [[nodiscard]] bool stalled(int n) const { return at(n).stalled; }
  [[nodiscard]] const Replica& replica(int n) const { return *at(n).replica; }
  [[nodiscard]] bool leads(int n) const { return up(n) && replica(n).role() == Role::leader; }
  /// The leader of the highest term, 0: none.
  [[nodiscard]] int leader() const;
  [[nodiscard]] bool open(int from, int to) const { return link(from, to).state == Link::open; }
  [[nodiscard]] bool cut(int from, int to) const { return link(from, to).state == Link::cut; }
  [[nodiscard]] bool waiting(int from, int to) const { return !link(from, to).queue.empty(); }
  [[nodiscard]] bool compactable(int n) const { return up(n) && !stalled(n) && replica(n).commit() > at(n).seen.start; }
  [[nodiscard]] ReplicaId id(int n) const { return at(n).id; }
  [[nodiscard]] int number(const ReplicaId& id) const { return id.node.value() + 1; }

 private:
  struct Packet {
    std::uint64_t incarnation = 0;  // of the sender
    std::variant<Message, HeartbeatFact, HeartbeatReply> body{};
    std::vector<Entry> batches{};
  };
  struct Link {
    enum { open, held, cut } state = open;
    std::deque<Packet> queue{};
  };
  struct Node {
    ReplicaId id{};
    std::uint64_t boots = 0;
    bool stalled = false;
    bool deaf = false;        // stalled, and all of the queue is on the disk
    std::size_t durable = 0;  // of the queue, what is on the disk already
    Image disk{};
    Image seen{};  // disk and queue
    std::deque<Write> queue{};
    Instant now{};
    std::unique_ptr<Replica> replica{};
  };

  [[nodiscard]] Node& at(int n) { return nodes_[static_cast<std::size_t>(n - 1)]; }
  [[nodiscard]] const Node& at(int n) const { return nodes_[static_cast<std::size_t>(n - 1)]; }
  [[nodiscard]] Link& link(int from, int to) { return links_[static_cast<std::size_t>(from - 1)][static_cast<std::size_t>(to - 1)]; }
  [[nodiscard]] const Link& link(int from, int to) const { return links_[static_cast<std::size_t>(from - 1)][static_cast<std::size_t>(to - 1)]; }
  void start(int n);
  void crash(int n, bool kept);
  void beat(int n);
  void compact(int n);
  void propose(int n, std::string_view label);
  void release(int from, int to, std::string_view how);
  void settle();
  void deliver(int from, int to, const Packet& packet);
  void post(int from, const ReplicaId& to, Packet packet);
  void drain(int n, Actions& out);
  void act(int n, const Action& action, Actions& out);
  void answer_read(int n, const ReadEntries& read, Actions& out);
  void write(int n, Write write);
  void flush(int n);
  void report(int n);

  std::vector<Node> nodes_{};
  std::vector<std::vector<Link>> links_{};
  bool restless_ = false;
  std::map<LogPosition, std::size_t> indexes_{{LogPosition{}, 0}};  // of places where logs begin: how many entries lie before
  std::vector<Entry> incoming_{};                                   // the batches of the message at hand
};

/// A script of at most `events` events from a seed, thought of while it is played; `out` gets each event with what came of it.
/// Events whose outcome the two libraries specify differently are left out, each counted by its name at the end.
void generate(std::uint64_t seed, int events, std::string& out);

}  // namespace tailrace::broker::raft::interop
