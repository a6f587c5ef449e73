#include "raft/membership.h"

#include <algorithm>

namespace tailrace::broker::raft {

Membership Membership::of_voters(std::span<const ReplicaId> voters) {
  Membership out;
  for (const ReplicaId& id : voters) {
    if (out.count_ < kVotersMax) static_cast<void>(out.add({id, true}));
  }
  return out;
}

const Member* Membership::find(const ReplicaId& id) const {
  auto all = members();
  auto found = std::ranges::find(all, id, &Member::id);
  return found == all.end() ? nullptr : &*found;
}

bool Membership::is_voter(const ReplicaId& id) const {
  const Member* member = find(id);
  return member && member->voter;
}

std::size_t Membership::voter_count() const {
  return static_cast<std::size_t>(std::ranges::count_if(members(), [](const Member& m) { return m.voter; }));
}

bool Membership::add(const Member& member) {
  if (count_ == kMembersMax || !member.id.valid() || find(member.id)) return false;
  members_[count_++] = member;
  return true;
}

std::optional<Membership> Membership::with(const MembershipChange& change) const {
  Membership out = *this;
  auto* end = out.members_.data() + out.count_;
  auto* found = std::find_if(out.members_.data(), end, [&](const Member& m) { return m.id == change.id; });
  bool known = found != end;
  switch (change.kind) {
    case ChangeKind::add_learner:
      if (!out.add({change.id, false})) return std::nullopt;
      return out;
    case ChangeKind::promote:
      if (!known || found->voter || voter_count() == kVotersMax) return std::nullopt;
      found->voter = true;
      return out;
    case ChangeKind::demote:
    case ChangeKind::remove:
      if (!known || (found->voter && voter_count() == 1)) return std::nullopt;
      if (change.kind == ChangeKind::demote) {
        if (!found->voter) return std::nullopt;
        found->voter = false;
        return out;
      }
      std::move(found + 1, end, found);
      out.members_[--out.count_] = Member{};
      return out;
  }
  return std::nullopt;
}

bool operator==(const Membership& a, const Membership& b) { return std::ranges::equal(a.members(), b.members()); }

}  // namespace tailrace::broker::raft
