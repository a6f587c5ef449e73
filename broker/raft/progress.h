#pragma once
/// What a leader knows of one other member, and what it may send it next.
///
///   probe      where do the logs agree? one append at a time, answered or asked again with the next heartbeat
///   replicate  runs follow each other without waiting, within a window of bytes (R7)
///   snapshot   the entries it needs are gone here: it gets a snapshot, then goes on in replicate
#include <array>
#include <cstddef>
#include <cstdint>

#include "model/ids.h"
#include "raft/membership.h"

namespace tailrace::broker::raft {

/// Bytes sent and not yet durable at the other side. A few slots are enough: when all are taken the newest grows, so bytes
/// are freed in larger steps, and the sum stays right.
class ByteWindow {
 public:
  void sent(LogPosition end, std::uint32_t bytes);
  void durable(LogPosition match);
  void clear() { count_ = 0, bytes_ = 0; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  struct Slot {
    LogPosition end{};
    std::uint64_t bytes = 0;
  };
  static constexpr std::size_t kSlots = 8;
  std::array<Slot, kSlots> slots_{};  // oldest first
  std::size_t count_ = 0;
  std::uint64_t bytes_ = 0;
};

enum class ProgressState : std::uint8_t { probe, replicate, snapshot };

struct Progress {
  ReplicaId id{};
  ProgressState state = ProgressState::probe;
  bool boundary = true;   // `next` is known to be an entry's end in our log; otherwise a probe of it is tentative
  bool paused = false;    // nothing is sent before an answer or the next heartbeat
  bool reading = false;   // ReadEntries is with the owner
  std::uint64_t ticket = 0;
  LogPosition match{};    // durable there and equal to ours: what commits
  LogPosition received{};  // equal, perhaps not durable
  LogPosition next{};     // where the next run begins
  LogPosition snapshot_at{};
  LogPosition caught_up_mark{};  // our commit at the last heartbeat: a learner whose match reached it has caught up
  std::uint64_t incarnation = 0;  // 0: not heard of yet
  std::uint64_t round = 0;        // newest one answered
  bool heard_since_check = false;
  bool behind_at_heartbeat = false;  // the last heartbeat's answer lacked what was sent: asked again if it still does
  ByteWindow window{};

  void probe(LogPosition at, bool known_boundary);
  void replicate(LogPosition from);
  void wait_for_snapshot(LogPosition at);
};

}  // namespace tailrace::broker::raft
