// Scripts from seeds. The world is played while the script is thought of, so that events are likely to matter.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "tests/interop/raft_reference/world.h"

namespace tailrace::broker::raft::interop {
namespace {

class Author {
 public:
  Author(std::uint64_t seed, std::string& out)
      : random_{seed}, voters_{3 + static_cast<int>(random_.below(3))}, world_{std::min(5, voters_ + static_cast<int>(random_.below(2))), voters_}, out_{out} {
    out_ += fmt::format("script seed-{} nodes {} voters {}\n", seed, world_.size(), voters_);
    // Each script does a few things often and others hardly ever.
    for (unsigned& weight : weights_) weight = random_.chance(1, 4) ? 0 : static_cast<unsigned>(random_.between(1, 8));
    if (random_.chance(1, 2)) weights_[kCompact] = 0;
    if (weights_[kCompact] > 0) weights_[kStall] = 0;
    weights_[kElection] += 6;
    weights_[kPropose] += 12;
    weights_[kBeat] += 6;
    weights_[kRestart] += 1;
  }

  void write(int events) {
    while (written_ < events) once();
    calm();
    for (const auto& [name, count] : avoided_) out_ += fmt::format("avoided {} {}\n", name, count);
    out_ += "end\n";
  }

 private:
  enum { kElection, kPropose, kBeat, kHold, kRelease, kCut, kJoin, kHeal, kStall, kCrash, kRestart, kCheck, kTransfer, kRival, kCompact, kMembers, kKinds };

  void play(const std::string& event) {
    world_.apply(event);
    out_ += "> " + event + '\n' + world_.state();
    ++written_;
  }
  int any() { return 1 + static_cast<int>(random_.below(static_cast<std::uint64_t>(world_.size()))); }
  int other(int n) {
    int m = 1 + static_cast<int>(random_.below(static_cast<std::uint64_t>(world_.size() - 1)));
    return m < n ? m : m + 1;
  }
  template <class Condition>
  int any_that(Condition condition) {
    std::vector<int> found;
    for (int n = 1; n <= world_.size(); ++n) {
      if (condition(n)) found.push_back(n);
    }
    return found.empty() ? 0 : found[random_.below(found.size())];
  }
  template <class Condition>
  bool every_link(Condition condition) {
    for (int a = 1; a <= world_.size(); ++a) {
      for (int b = 1; b <= world_.size(); ++b) {
        if (a != b && !condition(a, b)) return false;
      }
    }
    return true;
  }
  bool open_both(int a, int b) { return world_.open(a, b) && world_.open(b, a); }

  void once() {
    std::uint64_t sum = 0;
    for (unsigned weight : weights_) sum += weight;
    std::uint64_t drawn = random_.below(sum);
    int kind = 0;
    for (; drawn >= weights_[static_cast<std::size_t>(kind)]; ++kind) drawn -= weights_[static_cast<std::size_t>(kind)];
    switch (kind) {
      case kElection:
        return election();
      case kPropose:
        return propose();
      case kBeat:
        beat(any_that([&](int n) { return world_.leads(n); }));
        return;
      case kHold: {
        int a = any(), b = other(a);
        if (world_.open(a, b) && !hinders_return(a) && !hinders_return(b)) play(fmt::format("hold {} {}", a, b));
        return;
      }
      case kRelease:
        return release();
      case kCut: {
        int a = any(), b = other(a);
        if (!world_.cut(a, b)) play(fmt::format("cut {} {}", a, b));
        return;
      }
      case kJoin: {
        int a = any(), b = other(a);
        if (!open_both(a, b)) play(fmt::format("join {} {}", a, b));
        return;
      }
      case kHeal:
        if (!every_link([&](int a, int b) { return world_.open(a, b); })) play("heal");
        return;
      case kStall: {
        int n = any();
        if (!world_.up(n) || (!world_.stalled(n) && hinders_return(n))) return;
        if (world_.stalled(n)) {
          play(fmt::format("{} {}", random_.chance(1, 2) ? "flush" : random_.chance(1, 3) ? "deafen" : random_.chance(1, 2) ? "stall" : "tell", n));
        } else {
          play(fmt::format("{} {}", random_.chance(1, 3) ? "deafen" : "stall", n));
        }
        return;
      }
      case kCrash: {
        int n = any();
        if (world_.up(n) && !hinders_return(n)) play(fmt::format("crash {} {}", n, random_.chance(1, 2) ? "lost" : "kept"));
        return;
      }
      case kRestart: {
        int n = any_that([&](int i) { return !world_.up(i); });
        if (n != 0) play(fmt::format("start {}", n));
        return;
      }
      case kCheck: {
        int n = any_that([&](int i) { return world_.leads(i); });
        if (n != 0) play(fmt::format("check {}", n));
        return;
      }
      case kTransfer: {
        int n = any_that([&](int i) { return world_.leads(i); });
        if (n == 0) return;
        if (world_.replica(n).can_append() == Verdict::transferring) {
          ++avoided_["second_hand_over"];
          return;
        }
        play(fmt::format("transfer {} {}", n, other(n)));
        return;
      }
      case kCompact:
        compact(any_that([&](int i) { return world_.compactable(i); }));
        return;
      case kRival:
        return rival();
      default:
        return members();
    }
  }

  void election() {
    int n = any_that([&](int i) { return world_.up(i) && !world_.leads(i); });
    if (n == 0) return;
    // Whoever heard of a leader lately does not help.
    std::uint64_t percent = random_.chance(1, 4) ? 50 : 100;
    for (int m = 1; m <= world_.size(); ++m) {
      if (m != n && world_.up(m) && !world_.leads(m) && random_.chance(percent, 100)) play(fmt::format("age {}", m));
    }
    play(fmt::format("timeout {}", n));
  }

  /// How much a follower knows to be committed may differ, but for right after a heartbeat with everything at work.
  void compact(int n) {
    if (n == 0) return;
    if (!world_.leads(n)) {
      bool calm = every_link([&](int a, int b) { return world_.open(a, b); });
      for (int m = 1; m <= world_.size(); ++m) calm &= world_.up(m) && !world_.stalled(m);
      int leader = world_.leader();
      if (!calm || leader == 0 || !world_.replica(leader).members().find(world_.id(n)) || !beat(leader)) return;
      if (!world_.leads(leader) || world_.replica(n).commit() != world_.replica(leader).commit()) return;
    }
    play(fmt::format("compact {}", n));
  }

  /// A leader is cut off, from all or all but one, and goes on; the others elect another; both logs grow until they meet.
  void rival() {
    int old = world_.leader();
    if (old == 0) return;
    int spared = random_.chance(1, 2) ? other(old) : 0;
    for (int m = 1; m <= world_.size(); ++m) {
      if (m != old && m != spared && !world_.cut(old, m)) play(fmt::format("cut {} {}", old, m));
    }
    for (std::uint64_t k = random_.below(4); k > 0 && !refused_unheard(old); --k) play(fmt::format("propose {} {}", old, ++proposed_));
    int next = any_that([&](int m) { return m != old && m != spared && world_.up(m); });
    if (next == 0) return;
    for (int tries = 0; tries < 2 && !world_.leads(next); ++tries) {
      for (int m = 1; m <= world_.size(); ++m) {
        if (m != old && m != next && world_.up(m)) play(fmt::format("age {}", m));
      }
      play(fmt::format("timeout {}", next));
    }
    for (std::uint64_t k = random_.below(4); k > 0 && world_.leads(next) && !refused_unheard(next); --k) play(fmt::format("propose {} {}", next, ++proposed_));
    if (random_.chance(1, 2)) play("heal");
  }

  void propose() {
    int n = random_.chance(1, 20) ? any() : any_that([&](int i) { return world_.leads(i); });
    if (n != 0 && world_.leads(n) && refused_unheard(n)) return;
    if (n != 0) play(fmt::format("propose {} {}", n, ++proposed_));
  }

  /// What the leader asks of it arrives, is answered, and the leader is still there to hear that.
  bool answers(int n, int m) {
    bool goes = any_that([&](int i) { return world_.up(i) && world_.replica(i).term() > world_.replica(n).term(); }) != 0;
    return !goes && world_.up(m) && open_both(n, m) && !world_.stalled(m);
  }
  bool never_asked(int n, int m) { return world_.cut(n, m) || (!world_.up(m) && world_.open(n, m)); }
  /// It came back, and some leader does not know yet.
  bool returns(int m) {
    return any_that([&](int n) {
             if (!world_.up(m) || !world_.leads(n)) return false;
             auto members = world_.replica(n).progress();
             auto found = std::ranges::find(members, world_.id(m), &Progress::id);
             return found != members.end() && found->incarnation != 0 && found->incarnation != world_.replica(m).incarnation();
           }) != 0;
  }
  /// A member that came back is asked anew how far it agrees: it has to be able to answer.
  bool hinders_return(int m) {
    if (!returns(m)) return false;
    ++avoided_["returned_member_is_asked_anew"];
    return true;
  }

  /// Where an append was lost, the next is refused. Then we go on from where the refusal says that the logs may agree, the other
  /// library from what was acknowledged last: the same, once the other can acknowledge.
  bool refused_unheard(int n) {
    for (const Progress& member : world_.replica(n).progress()) {
      int m = world_.number(member.id);
      bool lacks = world_.up(m) && member.state == ProgressState::replicate && member.next > world_.replica(m).log().end();
      if (!lacks || answers(n, m) || never_asked(n, m)) continue;
      ++avoided_["refused_by_one_that_cannot_acknowledge"];
      return true;
    }
    return false;
  }

  /// A heartbeat, or its answer, that arrives late lacks what was sent meanwhile: we take two for a loss and ask again, the other
  /// library goes on sending.
  bool late_heartbeats(int n) {
    for (const Progress& member : world_.replica(n).progress()) {
      int m = world_.number(member.id);
      if (open_both(n, m) || never_asked(n, m)) continue;
      ++avoided_["heartbeats_that_would_arrive_late"];
      return true;
    }
    return false;
  }

  /// The answer to a heartbeat says how much is durable here, not there; so what was acknowledged in vain counts, though more is on its
  /// way to a disk that stalls.
  bool acknowledges_by_heartbeat(int n) {
    for (const Progress& member : world_.replica(n).progress()) {
      int m = world_.number(member.id);
      if (!world_.up(m) || !world_.stalled(m) || member.match >= world_.replica(m).flushed()) continue;
      ++avoided_["heartbeat_answer_acknowledges"];
      return true;
    }
    return false;
  }

  /// While it hands over, it sends nobody but the target what may decide who is elected.
  bool hands_over_among_laggards(int n) {
    const Replica& leading = world_.replica(n);
    if (leading.can_append() != Verdict::transferring) return false;
    for (const Progress& member : leading.progress()) {
      if (member.match == leading.log().end() || !world_.up(world_.number(member.id))) continue;
      ++avoided_["hands_over_while_others_catch_up"];
      return true;
    }
    return false;
  }

  /// Where a leader does not know yet how far a member agrees, we ask again with each heartbeat, the other library when it was
  /// answered: so it sends entries that the other holds back, if no answer comes, or comes too late for a leader that has to go.
  bool asks_again(int n) {
    for (const Progress& member : world_.replica(n).progress()) {
      int m = world_.number(member.id);
      if (member.state == ProgressState::replicate || answers(n, m) || never_asked(n, m)) continue;
      ++avoided_["asks_again_without_an_answer"];
      return true;
    }
    return false;
  }

  bool beat(int n) {
    if (n == 0 || !world_.leads(n)) return false;
    if (asks_again(n) || refused_unheard(n) || late_heartbeats(n) || acknowledges_by_heartbeat(n) || hands_over_among_laggards(n)) return false;
    play(fmt::format("beat {}", n));
    return true;
  }

  void release() {
    int a = any(), b = other(a);
    if (world_.open(a, b) || world_.cut(a, b)) return;
    // What arrives in another order is refused in part and sent again: that has to happen within the event.
    bool answered = world_.open(b, a) && world_.up(a) && world_.up(b) && !world_.stalled(b);
    std::uint64_t how = random_.below(10);
    const char* verb = how < 5 ? "release" : how < 7 ? "twice" : how < 8 ? "drop" : "backwards";
    if (how >= 8 && !answered) verb = "release";
    play(fmt::format("{} {} {}", verb, a, b));
  }

  /// A membership is in force from its append on here, from its commit on there: so it commits within the event.
  void members() {
    int n = world_.leader();
    if (n == 0) return;
    if (!every_link([&](int a, int b) { return world_.open(a, b); })) play("heal");
    for (int i = 1; i <= world_.size(); ++i) {
      if (world_.stalled(i)) play(fmt::format("flush {}", i));
      if (!world_.up(i) && random_.chance(1, 2)) play(fmt::format("start {}", i));
    }
    if (!beat(n) || !world_.leads(n) || !world_.replica(n).serving()) return;
    const Replica& leading = world_.replica(n);
    if (leading.can_append() != Verdict::ok || leading.log().members_pending(leading.commit())) return;
    int m = any();
    if (m == n) {
      ++avoided_["removed_leader_hands_over"];
      return;
    }
    const Member* member = leading.members().find(world_.id(m));
    const char* verb = !member ? "add" : !member->voter ? (random_.chance(1, 4) ? "remove" : "promote") : random_.chance(1, 2) ? "demote" : "remove";
    ChangeKind kind = !member ? ChangeKind::add_learner : member->voter ? ChangeKind::remove : ChangeKind::promote;
    auto after = leading.members().with({kind, world_.id(m)});
    if (!after || !commits(*after, kind == ChangeKind::remove ? m : 0)) return;
    if (std::string_view{verb} == "promote" && !world_.up(m)) {
      ++avoided_["learner_is_not_caught_up"];
      return;
    }
    play(fmt::format("{} {} {}", verb, n, m));
    if (world_.leads(n)) beat(n);
  }
  /// A quorum of both memberships takes entries; who is removed takes none.
  bool commits(const Membership& after, int removed) {
    const Membership& before = world_.replica(world_.leader()).members();
    auto enough = [&](const Membership& members) {
      std::size_t up = 0;
      for (const Member& member : members.members()) {
        int m = world_.number(member.id);
        up += member.voter && m != removed && world_.up(m) ? 1 : 0;
      }
      return up >= members.quorum();
    };
    return enough(before) && enough(after);
  }

  /// Everything works: somebody leads, and what it says is everywhere.
  void calm() {
    play("heal");
    for (int n = 1; n <= world_.size(); ++n) {
      if (!world_.up(n)) play(fmt::format("start {}", n));
      if (world_.stalled(n)) play(fmt::format("flush {}", n));
    }
    for (int n = 1; n <= world_.size(); ++n) {
      if (world_.leads(n)) play(fmt::format("check {}", n));
    }
    for (int tries = 0; tries < 4 * world_.size() && world_.leader() == 0; ++tries) {
      for (int n = 1; n <= world_.size(); ++n) {
        if (n != 1 + tries % world_.size()) play(fmt::format("age {}", n));
      }
      play(fmt::format("timeout {}", 1 + tries % world_.size()));
    }
    int n = world_.leader();
    if (n == 0 || refused_unheard(n)) return;
    play(fmt::format("propose {} {}", n, ++proposed_));
    if (!beat(n)) return;
    play(fmt::format("propose {} {}", n, ++proposed_));
    beat(n);
  }

  Random random_;
  int voters_;
  World world_;
  std::string& out_;
  std::array<unsigned, kKinds> weights_{};
  std::map<std::string, int> avoided_{};
  int written_ = 0;
  int proposed_ = 0;
};

}  // namespace

void generate(std::uint64_t seed, int events, std::string& out) { Author{seed, out}.write(events); }

}  // namespace tailrace::broker::raft::interop
