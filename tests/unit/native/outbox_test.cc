#include "native/outbox.h"

#include <gtest/gtest.h>

#include <string>

#include "proto/native/native.pb.h"
#include "tests/unit/native/frames.h"

namespace tailrace::broker::native {
namespace {

using proto::FrameType;

Slice slice_of(std::size_t size, char fill) {
  Buffer buffer = Buffer::allocate(size);
  std::memset(buffer.data(), fill, size);
  return Slice::whole(buffer);
}

std::string drain(Outbox& outbox, std::size_t* writes = nullptr) {
  std::string out;
  for (;;) {
    auto parts = outbox.gather();
    if (parts.empty()) return out;
    for (const iovec& part : parts) out.append(static_cast<const char*>(part.iov_base), part.iov_len);
    outbox.written();
    if (writes) ++*writes;
  }
}

proto::Pong pong(std::uint64_t token) {
  proto::Pong out;
  out.set_token(token);
  return out;
}

// What leaves is exactly the frames, in order, whatever is packed together or sent from where it lies.
TEST(Outbox, FramesLeaveInOrderAndWhole) {
  Outbox outbox;
  std::string expected;
  std::size_t payload_sizes[] = {0, 1, 2'047, 2'048, 70'000, 10, 5'000'000};
  for (int i = 0; i < 300; ++i) {
    std::size_t size = payload_sizes[i % 7];
    if (size > 1'000'000 && i > 50) size = 3;
    Slice one = slice_of(size, static_cast<char>('a' + i % 26)), two = slice_of(i % 5 == 0 ? 100 : 3'000, 'Z');
    Slice both[] = {one, two};
    outbox.add(FrameType::records, static_cast<std::uint64_t>(i), pong(static_cast<std::uint64_t>(i)), both);
    std::string payload{as_text(one.bytes())};
    payload += as_text(two.bytes());
    expected += frame_of(FrameType::records, static_cast<std::uint64_t>(i), pong(static_cast<std::uint64_t>(i)), payload);
  }
  EXPECT_EQ(outbox.unsent_bytes(), expected.size());
  EXPECT_TRUE(outbox.full());
  EXPECT_TRUE(drain(outbox) == expected);
  EXPECT_TRUE(outbox.empty());
  EXPECT_EQ(outbox.sent_bytes(), expected.size());
  EXPECT_EQ(outbox.frames(), 300u);
}

// Frames that are added while a write is under way must not change what the kernel is reading.
TEST(Outbox, AddingDuringAWriteLeavesItUntouched) {
  Outbox outbox;
  outbox.add(FrameType::pong, 1, pong(1));
  auto parts = outbox.gather();
  ASSERT_EQ(parts.size(), 1u);
  std::size_t length = parts[0].iov_len;
  for (int i = 0; i < 1'000; ++i) outbox.add(FrameType::pong, 2, pong(2));
  EXPECT_EQ(parts[0].iov_len, length);
  EXPECT_EQ(std::string(static_cast<const char*>(parts[0].iov_base), length), frame_of(FrameType::pong, 1, pong(1)));
  outbox.written();
  std::string rest = drain(outbox);
  EXPECT_EQ(rest.size(), 1'000 * length);
}

// A thousand small replies are one write, or latency and processor time go into system calls.
TEST(Outbox, SmallRepliesShareOneWrite) {
  Outbox outbox;
  for (int i = 0; i < 1'000; ++i) outbox.add(FrameType::pong, 1, pong(1));
  std::size_t writes = 0;
  drain(outbox, &writes);
  EXPECT_EQ(writes, 1u);
}

// A large slice is sent from where it lies, and kept alive until it is sent.
TEST(Outbox, LargeSlicesAreReferencedNotCopied) {
  Outbox outbox;
  Slice slice = slice_of(100'000, 'x');
  const void* where = slice.bytes().data();
  outbox.add(FrameType::records, 1, pong(1), {&slice, 1});
  slice = Slice{};
  auto parts = outbox.gather();
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[1].iov_base, where);
  EXPECT_EQ(static_cast<const char*>(parts[1].iov_base)[99'999], 'x');
  outbox.written();
}

// One write has a bound, so that a deadline on its progress means something.
TEST(Outbox, AWriteIsBounded) {
  Outbox outbox;
  for (int i = 0; i < 40; ++i) {
    Slice slice = slice_of(100'000, 'x');
    outbox.add(FrameType::records, 1, pong(1), {&slice, 1});
  }
  std::size_t bytes = 0;
  for (const iovec& part : outbox.gather()) bytes += part.iov_len;
  EXPECT_LE(bytes, Outbox::kBytesPerWriteMax);
}

}  // namespace
}  // namespace tailrace::broker::native
