#pragma once
/// Frames on their way out of one connection, in order.
///
/// Copies   Control parts and payload slices below kCoalesceBelow are packed into shared blocks; larger slices are only
///          referenced, and go to the socket from where they lie (hot tail or read buffer).
/// Bound    unsent_bytes() counts everything not yet handed to the kernel. The outbox never refuses: whoever produces
///          frames without being asked (subscriptions) waits while full() holds, and the reader stops taking requests.
/// Thread   the connection's shard.
#include <sys/uio.h>

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "proto/native/frame.h"

namespace google::protobuf {
class MessageLite;
}

namespace tailrace::broker::native {

class Outbox {
 public:
  static constexpr std::size_t kCoalesceBelow = 2 * 1024;        // below this a copy is cheaper than an iovec
  static constexpr std::size_t kBlockBytes = 4 * 1024;
  static constexpr std::size_t kPartsPerWriteMax = 256;          // below IOV_MAX (1024)
  static constexpr std::size_t kBytesPerWriteMax = 256 * 1024;   // a write ends in reasonable time, so that deadlines see progress
  static constexpr std::size_t kFullAbove = 2 * 1024 * 1024;

  void add(proto::FrameType type, std::uint64_t id, const google::protobuf::MessageLite& control, std::span<const Slice> payload = {});

  [[nodiscard]] bool empty() const { return unsent_ == 0; }
  [[nodiscard]] bool full() const { return unsent_ > kFullAbove; }
  [[nodiscard]] std::size_t unsent_bytes() const { return unsent_; }
  [[nodiscard]] std::uint64_t frames() const { return frames_; }
  [[nodiscard]] std::uint64_t sent_bytes() const { return sent_; }

  /// What to write next; empty when nothing is queued. Stays in place until written() is called.
  [[nodiscard]] std::span<const iovec> gather();
  /// The last gather() was written whole.
  void written();

 private:
  MutableBytes reserve(std::size_t count);  // contiguous room at the end of the open block, already queued
  void append(Bytes bytes);

  std::deque<Slice> parts_;
  Buffer block_;               // the last small part grows in it
  std::size_t block_used_ = 0;
  bool extendable_ = false;    // parts_.back() ends at block_used_ of block_, and is not being written
  std::vector<iovec> vector_;
  std::size_t writing_parts_ = 0;
  std::size_t unsent_ = 0;
  std::uint64_t frames_ = 0;
  std::uint64_t sent_ = 0;
};

}  // namespace tailrace::broker::native
