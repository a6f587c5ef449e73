#include "native/outbox.h"

#include <google/protobuf/message_lite.h>

#include <cstring>

namespace tailrace::broker::native {

MutableBytes Outbox::reserve(std::size_t count) {
  if (!block_ || block_.size() - block_used_ < count) {
    block_ = Buffer::allocate(count > kBlockBytes ? count : kBlockBytes);
    block_used_ = 0;
    extendable_ = false;
  }
  if (!extendable_) {
    parts_.push_back(Slice{block_, block_used_, 0});
    extendable_ = true;
  }
  MutableBytes room = block_.bytes().subspan(block_used_, count);
  parts_.back().length += count;
  block_used_ += count;
  unsent_ += count;
  return room;
}

void Outbox::append(Bytes bytes) {
  if (!bytes.empty()) std::memcpy(reserve(bytes.size()).data(), bytes.data(), bytes.size());
}

void Outbox::add(proto::FrameType type, std::uint64_t id, const google::protobuf::MessageLite& control, std::span<const Slice> payload) {
  std::size_t payload_bytes = 0;
  for (const Slice& slice : payload) payload_bytes += slice.length;
  std::size_t control_bytes = control.ByteSizeLong();
  MutableBytes head = reserve(proto::kFrameHeaderBytes + control_bytes);
  proto::write_frame_header(head.data(), type, id, control_bytes, payload_bytes);
  control.SerializeWithCachedSizesToArray(reinterpret_cast<std::uint8_t*>(head.data() + proto::kFrameHeaderBytes));
  for (const Slice& slice : payload) {
    if (slice.length < kCoalesceBelow) {
      append(slice.bytes());
      continue;
    }
    parts_.push_back(slice);
    unsent_ += slice.length;
    extendable_ = false;
  }
  ++frames_;
}

std::span<const iovec> Outbox::gather() {
  vector_.clear();
  std::size_t bytes = 0;
  for (const Slice& part : parts_) {
    if (vector_.size() == kPartsPerWriteMax || (bytes > 0 && bytes + part.length > kBytesPerWriteMax)) break;
    vector_.push_back({const_cast<std::byte*>(part.bytes().data()), part.length});
    bytes += part.length;
  }
  writing_parts_ = vector_.size();
  if (writing_parts_ == parts_.size()) extendable_ = false;  // the part being written does not change its length under the writer
  return vector_;
}

void Outbox::written() {
  for (; writing_parts_ > 0; --writing_parts_) {
    unsent_ -= parts_.front().length;
    sent_ += parts_.front().length;
    parts_.pop_front();
  }
  if (parts_.empty()) {  // an idle connection holds no block
    block_ = Buffer{};
    block_used_ = 0;
    extendable_ = false;
  }
}

}  // namespace tailrace::broker::native
