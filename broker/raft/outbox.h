#pragma once
/// How a replica sends: the one place where a message meets what it depends on (R1). Used by replica's own files only.
#include "base/planted.h"
#include "raft/replica.h"

namespace tailrace::broker::raft {

/// The message goes among the actions, or waits until the newest hard state handed out is durable. Past the bound the oldest
/// waiting one is lost, as on a network.
template <class M>
M& Replica::send(const ReplicaId& to, Actions& out) {
  bool hold = hard_state_pending() && !planted(PlantedBug::raft_send_before_hard_state);
  if (hold && held_.size() >= kHeldMax) held_.erase(held_.begin());
  Message& place = hold ? held_.emplace_back() : out.add<Send>().message;
  M& message = place.template emplace<M>();
  message.header = {self_, to, hard_.term};
  return message;
}

}  // namespace tailrace::broker::raft
