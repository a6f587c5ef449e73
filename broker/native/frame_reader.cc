#include "native/frame_reader.h"

#include <algorithm>
#include <cstring>

#include "base/planted.h"

namespace tailrace::broker::native {
namespace {

constexpr unsigned kSmallReadsBeforeShrinking = 16;

}  // namespace

Slice FrameReader::Frame::keep() const {
  if (payload.empty()) return {};
  if (owner) return Slice{owner, static_cast<std::size_t>(payload.data() - owner.data()), payload.size()};
  return Slice::whole(Buffer::copy_of(payload));
}

FrameReader::FrameReader() { resize(kBufferBytesMin); }

void FrameReader::raise_limit(std::size_t frame_bytes_max) {
  frame_bytes_max_ = frame_bytes_max;
  large_from_ = kLargeFrame + 1;
}

void FrameReader::resize(std::size_t capacity) {
  auto bigger = std::make_unique_for_overwrite<std::byte[]>(capacity);
  if (filled_ > parsed_) std::memcpy(bigger.get(), buffer_.get() + parsed_, filled_ - parsed_);
  filled_ -= parsed_;
  parsed_ = 0;
  buffer_ = std::move(bigger);
  capacity_ = capacity;
}

MutableBytes FrameReader::space() {
  if (state_ == State::filling) return large_.bytes().subspan(large_filled_);
  if (state_ == State::skipping && parsed_ == filled_) parsed_ = filled_ = 0;
  if (parsed_ == filled_) parsed_ = filled_ = 0;
  if (grow_ && capacity_ < kBufferBytesMax) {
    resize(capacity_ * 2);
  } else if (parsed_ == filled_ && small_reads_ >= kSmallReadsBeforeShrinking && capacity_ > kBufferBytesMin) {
    resize(kBufferBytesMin);
  } else if (filled_ == capacity_) {
    if (parsed_ == 0) {
      resize(capacity_ * 2);  // one frame fills it all, and came in full: the next size up is earned. Ends at large_from_.
    } else {
      std::memmove(buffer_.get(), buffer_.get() + parsed_, filled_ - parsed_);
      filled_ -= parsed_;
      parsed_ = 0;
    }
  }
  grow_ = false;
  std::size_t room = capacity_ - filled_;
  if (expect_large_ && parsed_ == filled_) room = std::min(room, kBufferBytesMin);
  return {buffer_.get() + filled_, room};
}

void FrameReader::received(std::size_t count) {
  if (state_ == State::filling) {
    TAILRACE_CHECK(count <= large_.size() - large_filled_, "a read does not pass the space it was given");
    large_filled_ += count;
    return;
  }
  TAILRACE_CHECK(count <= capacity_ - filled_, "a read does not pass the space it was given");
  if (count == capacity_ - filled_ && !expect_large_) grow_ = true;
  small_reads_ = count < kBufferBytesMin / 4 ? small_reads_ + 1 : 0;
  filled_ += count;
}

FrameReader::Step FrameReader::next() {
  frame_ = Frame{};
  switch (state_) {
    case State::buffered: return next_buffered();
    case State::asked: return Step::large;
    case State::filling:
    case State::skipping: return next_large();
    case State::failed: return Step::bad;
  }
  return Step::bad;
}

FrameReader::Step FrameReader::next_buffered() {
  if (filled_ - parsed_ < proto::kFrameHeaderBytes) {
    // Garbage is known by its first bytes: a TLS or HTTP hello need not send twenty of them.
    if (filled_ - parsed_ >= proto::kFrameLengthBytes) {
      auto length = load_le<std::uint32_t>(buffer_.get() + parsed_);
      if (length < proto::kFrameLengthMin) return fail("the length is less than a header");
      if (length + proto::kFrameLengthBytes > frame_bytes_max_) return fail("the length is above the limit");
    }
    return Step::need_bytes;
  }
  header_ = proto::read_frame_header(buffer_.get() + parsed_);
  if (header_.length < proto::kFrameLengthMin) return fail("the length is less than a header");
  if (header_.total_bytes() > frame_bytes_max_) return fail("the length is above the limit");
  if (!header_.is_consistent()) return fail("the control length passes the frame's end");
  if (header_.control_length > limits::kControlBytesMax && !planted(PlantedBug::decoder_length))
    return fail("the control part is above its limit");
  std::size_t total = header_.total_bytes();
  if (total >= large_from_) {
    state_ = State::asked;
    return Step::large;
  }
  if (filled_ - parsed_ < total) return Step::need_bytes;
  Bytes body{buffer_.get() + parsed_ + proto::kFrameHeaderBytes, total - proto::kFrameHeaderBytes};
  frame_.header = header_;
  if (planted(PlantedBug::decoder_length)) {
    frame_.control = Bytes{body.data(), header_.control_length};
  } else {
    frame_.control = body.first(header_.control_length);
    frame_.payload = body.subspan(header_.control_length);
  }
  parsed_ += total;
  expect_large_ = false;
  return Step::frame;
}

void FrameReader::admit() {
  TAILRACE_CHECK(state_ == State::asked, "a frame is admitted after it was shown");
  large_wanted_ = header_.total_bytes();
  large_ = Buffer::allocate(large_wanted_ + kLookahead);
  skip_ = 0;
  take_from_buffer();
  state_ = State::filling;
}

void FrameReader::discard_payload() {
  TAILRACE_CHECK(state_ == State::asked, "a frame is discarded after it was shown");
  large_wanted_ = proto::kFrameHeaderBytes + header_.control_length;
  large_ = Buffer::allocate(large_wanted_);
  skip_ = header_.payload_bytes();
  take_from_buffer();
  state_ = large_filled_ < large_wanted_ ? State::filling : State::skipping;
}

void FrameReader::take_from_buffer() {
  std::size_t count = std::min(filled_ - parsed_, large_wanted_);
  std::memcpy(large_.data(), buffer_.get() + parsed_, count);
  parsed_ += count;
  large_filled_ = count;
}

FrameReader::Step FrameReader::next_large() {
  if (state_ == State::filling) {
    if (large_filled_ < large_wanted_) return Step::need_bytes;
    if (std::size_t ahead = large_filled_ - large_wanted_; ahead > 0) {  // the beginning of the next frame came along
      parsed_ = 0;
      filled_ = ahead;
      std::memcpy(buffer_.get(), large_.data() + large_wanted_, ahead);
    }
    state_ = State::skipping;
  }
  std::size_t dropped = std::min(skip_, filled_ - parsed_);
  parsed_ += dropped;
  skip_ -= dropped;
  if (skip_ > 0) return Step::need_bytes;
  frame_.header = header_;
  frame_.control = Bytes{large_.data() + proto::kFrameHeaderBytes, header_.control_length};
  frame_.discarded = large_wanted_ != header_.total_bytes();
  if (!frame_.discarded)
    frame_.payload = Bytes{large_.data() + proto::kFrameHeaderBytes + header_.control_length, header_.payload_bytes()};
  frame_.owner = std::move(large_);
  large_ = Buffer{};
  state_ = State::buffered;
  expect_large_ = !frame_.discarded;
  return Step::frame;
}

FrameReader::Step FrameReader::fail(std::string_view reason) {
  state_ = State::failed;
  bad_reason_ = reason;
  return Step::bad;
}

}  // namespace tailrace::broker::native
