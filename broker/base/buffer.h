#pragma once
/// Reference-counted byte blocks. A received batch is stored once and shared by the hot tail, the WAL staging copy and
/// every reader; readers on other shards hold references too, so the count is atomic.
#include <atomic>
#include <cstdlib>
#include <new>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace tailrace::broker {

/// Owns     one heap block; freed with its last reference, on whichever thread drops it.
/// Thread   references may be copied and dropped on any thread. The bytes may be written only by whoever filled the
///          block, and only before it hands out the first copy or when it holds the last (unique()).
class Buffer {
 public:
  Buffer() = default;
  /// `alignment` is a power of two; direct I/O needs kDirectAlignment (io/file.h).
  static Buffer allocate(std::size_t size, std::size_t alignment = 64) {
    std::size_t header = alignment > kHeader ? alignment : kHeader;
    auto* raw = static_cast<std::byte*>(::operator new(header + size, std::align_val_t{header}));
    Buffer out;
    out.block_ = new (raw) Block{.size = size, .header = header};
    return out;
  }
  static Buffer copy_of(Bytes bytes) {
    Buffer out = allocate(bytes.size());
    if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  Buffer(const Buffer& other) : block_{other.block_} {
    if (block_) block_->references.fetch_add(1, std::memory_order_relaxed);
  }
  Buffer(Buffer&& other) noexcept : block_{std::exchange(other.block_, nullptr)} {}
  Buffer& operator=(Buffer other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Buffer() {
    if (block_ && block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      std::size_t header = block_->header;
      block_->~Block();
      ::operator delete(static_cast<void*>(block_), std::align_val_t{header});
    }
  }
  [[nodiscard]] explicit operator bool() const { return block_ != nullptr; }
  [[nodiscard]] std::byte* data() const { return reinterpret_cast<std::byte*>(block_) + block_->header; }
  [[nodiscard]] std::size_t size() const { return block_ ? block_->size : 0; }
  /// Nobody else holds it: its bytes may be filled anew.
  [[nodiscard]] bool unique() const { return block_ && block_->references.load(std::memory_order_acquire) == 1; }
  [[nodiscard]] MutableBytes bytes() const { return block_ ? MutableBytes{data(), block_->size} : MutableBytes{}; }

 private:
  struct Block {
    std::atomic<std::uint32_t> references{1};
    std::size_t size = 0;
    std::size_t header = 0;
  };
  static constexpr std::size_t kHeader = 64;
  static_assert(sizeof(Block) <= kHeader);
  Block* block_ = nullptr;
};

/// A part of a Buffer that keeps the whole alive.
struct Slice {
  Buffer owner{};
  std::size_t offset = 0;
  std::size_t length = 0;

  [[nodiscard]] static Slice whole(Buffer buffer) {
    std::size_t size = buffer.size();
    return {std::move(buffer), 0, size};
  }
  [[nodiscard]] Bytes bytes() const { return length ? Bytes{owner.data() + offset, length} : Bytes{}; }
  [[nodiscard]] MutableBytes mutable_bytes() const {
    return length ? MutableBytes{owner.data() + offset, length} : MutableBytes{};
  }
  [[nodiscard]] Slice part(std::size_t from, std::size_t count) const {
    TAILRACE_DCHECK(from <= length && count <= length - from, "a part lies inside its slice");
    return {owner, offset + from, count};
  }
};

}  // namespace tailrace::broker
