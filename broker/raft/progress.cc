#include "raft/progress.h"

#include <algorithm>

namespace tailrace::broker::raft {

void ByteWindow::sent(LogPosition end, std::uint32_t bytes) {
  bytes_ += bytes;
  if (count_ == kSlots) {
    slots_[count_ - 1].end = end;
    slots_[count_ - 1].bytes += bytes;
    return;
  }
  slots_[count_++] = {end, bytes};
}

void ByteWindow::durable(LogPosition match) {
  std::size_t done = 0;
  while (done < count_ && slots_[done].end <= match) bytes_ -= slots_[done++].bytes;
  if (done == 0) return;
  std::move(slots_.begin() + static_cast<std::ptrdiff_t>(done), slots_.begin() + static_cast<std::ptrdiff_t>(count_), slots_.begin());
  count_ -= done;
}

void Progress::probe(LogPosition at, bool known_boundary) {
  state = ProgressState::probe;
  next = at;
  boundary = known_boundary;
  paused = false;
  reading = false;
  behind_at_heartbeat = false;
  window.clear();
}

void Progress::replicate(LogPosition from) {
  probe(from, true);
  state = ProgressState::replicate;
}

void Progress::wait_for_snapshot(LogPosition at) {
  probe(at, true);
  state = ProgressState::snapshot;
  snapshot_at = at;
}

}  // namespace tailrace::broker::raft
