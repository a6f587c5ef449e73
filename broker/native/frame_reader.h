#pragma once
/// Bytes of one connection to frames, without a socket: the connection asks where the next read goes, tells how much came,
/// and takes frames out.
///
/// Owns     a read buffer of 4 KiB that grows to 64 KiB while reads fill it and shrinks again when they do not, and, while
///          a large frame is being received, one Buffer of exactly that frame.
/// Copies   A frame above kLargeFrame is received into its own Buffer, and its payload becomes a Slice of it without a
///          copy. A smaller payload is copied once into a Buffer of its own size: it then never keeps a larger buffer alive,
///          for as long as the hot tail wants it, and the read buffer is used again at once.
/// Memory   A length field alone never makes the reader allocate: a large frame is first shown as Step::large, and memory
///          is taken only when the owner says so (admit); below that the buffer grows with the bytes that came.
/// Errors   Step::bad is final: the stream cannot be resynchronised.
/// Spec     docs/native-protocol.md, "Frames" and "Limits".
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/buffer.h"
#include "model/limits.h"
#include "proto/native/frame.h"

namespace tailrace::broker::native {

class FrameReader {
 public:
  static constexpr std::size_t kBufferBytesMin = 4 * limits::kKiB;    // what an idle connection costs
  static constexpr std::size_t kBufferBytesMax = 64 * limits::kKiB;
  static constexpr std::size_t kLargeFrame = 16 * limits::kKiB;       // from here on one Buffer per frame
  static constexpr std::size_t kLookahead = 256;                      // of the next frame, read together with a large one

  struct Frame {
    proto::FrameHeader header;
    Bytes control;           // until the next call of the reader
    Bytes payload;           // likewise, unless kept
    Buffer owner;            // the payload's, when the frame was received on its own
    bool discarded = false;  // the payload was not admitted and is gone; `payload` is empty
    /// The payload for longer: a part of `owner`, or a copy of its own size.
    [[nodiscard]] Slice keep() const;
  };
  enum class Step : std::uint8_t { need_bytes, frame, large, bad };

  FrameReader();

  /// Never empty. The span stays good until the next call of the reader.
  [[nodiscard]] MutableBytes space();
  /// `count` bytes were put at the front of the last space().
  void received(std::size_t count);

  /// need_bytes: read more. frame: see frame(). large: a header was read whose frame does not go into the read buffer; see
  /// large_header(), then call admit() or discard_payload(), then next() again. bad: see bad_reason().
  [[nodiscard]] Step next();
  [[nodiscard]] const Frame& frame() const { return frame_; }
  [[nodiscard]] const proto::FrameHeader& large_header() const { return header_; }
  [[nodiscard]] std::string_view bad_reason() const { return bad_reason_; }

  void admit();
  void discard_payload();

  /// A frame has begun and is not complete: the frame deadline runs.
  [[nodiscard]] bool in_frame() const { return state_ != State::buffered || parsed_ != filled_; }
  /// Frames may now have the size the hello reply allows.
  void raise_limit(std::size_t frame_bytes_max);
  /// Buffers held now.
  [[nodiscard]] std::size_t held_bytes() const { return capacity_ + large_.size(); }

 private:
  enum class State : std::uint8_t { buffered, asked, filling, skipping, failed };
  Step next_buffered();
  Step next_large();
  Step fail(std::string_view reason);
  void take_from_buffer();
  void resize(std::size_t capacity);

  std::unique_ptr<std::byte[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t parsed_ = 0;   // before this: done with
  std::size_t filled_ = 0;
  std::size_t frame_bytes_max_ = limits::kFrameBytesBeforeHelloMax;
  std::size_t large_from_ = limits::kFrameBytesBeforeHelloMax + 1;  // before hello everything is buffered, growing with what came

  State state_ = State::buffered;
  proto::FrameHeader header_;
  Buffer large_;
  std::size_t large_wanted_ = 0;   // bytes of the frame that go into large_
  std::size_t large_filled_ = 0;
  std::size_t skip_ = 0;           // bytes of the frame after those, to be dropped
  bool expect_large_ = false;      // the last frame was large: read little ahead, so that the next payload is not copied
  bool grow_ = false;
  unsigned small_reads_ = 0;
  Frame frame_;
  std::string_view bad_reason_;
};

}  // namespace tailrace::broker::native
