#include "native/frame_reader.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <vector>

#include "tests/unit/native/frames.h"

namespace tailrace::broker::native {
namespace {

using proto::FrameType;

/// What a connection does with its reader, from a script of bytes cut into reads.
struct World {
  explicit World(bool greeted = true) {
    if (greeted) reader.raise_limit(limits::kFrameBytesMax);
  }
  /// Feeds all of `bytes` in reads of at most `step`; answers the last step that was not "frame".
  FrameReader::Step feed(std::string_view bytes, std::size_t step = ~std::size_t{0}) {
    for (;;) {
      FrameReader::Step next = take();
      if (next == FrameReader::Step::bad || bytes.empty()) return next;
      MutableBytes space = reader.space();
      EXPECT_FALSE(space.empty());
      std::size_t count = std::min({bytes.size(), space.size(), step});
      std::memcpy(space.data(), bytes.data(), count);
      bytes.remove_prefix(count);
      reader.received(count);
      held_most = std::max(held_most, reader.held_bytes());
    }
  }
  FrameReader::Step take() {
    for (;;) {
      switch (FrameReader::Step step = reader.next()) {
        case FrameReader::Step::need_bytes:
        case FrameReader::Step::bad: return step;
        case FrameReader::Step::large:
          ++asked;
          if (refuse_large) reader.discard_payload();
          else reader.admit();
          break;
        case FrameReader::Step::frame:
          types.push_back(reader.frame().header.type);
          controls.emplace_back(as_text(reader.frame().control));
          discarded.push_back(reader.frame().discarded);
          payloads.push_back(reader.frame().keep());
          break;
      }
    }
  }
  FrameReader reader;
  bool refuse_large = false;
  int asked = 0;
  std::size_t held_most = 0;
  std::vector<FrameType> types;
  std::vector<std::string> controls;
  std::vector<bool> discarded;
  std::vector<Slice> payloads;
};

std::string pattern(std::size_t size, unsigned seed) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>(i * 31 + seed * 17 + (i >> 8));
  return out;
}

// The network cuts where it likes; what comes out must not depend on it.
RC_GTEST_PROP(FrameReader, FramesAreTheSameHoweverTheyAreCut, ()) {
  std::string bytes;
  std::vector<std::string> controls, payloads;
  int count = *rc::gen::inRange(1, 12);
  for (int i = 0; i < count; ++i) {
    controls.push_back(pattern(*rc::gen::element<std::size_t>(0, 1, 30, 5'000, 20'000), 1));
    payloads.push_back(pattern(*rc::gen::element<std::size_t>(0, 1, 200, 4'000, 16'000, 40'000, 100'000), static_cast<unsigned>(i)));
    bytes += frame_of(FrameType::publish, 7, controls.back(), payloads.back());
  }
  World world;
  world.refuse_large = *rc::gen::inRange(0, 4) == 0;
  std::size_t step = *rc::gen::element<std::size_t>(1, 7, 100, 4'096, 65'536, 1'000'000);
  RC_ASSERT(world.feed(bytes, step) == FrameReader::Step::need_bytes);
  RC_ASSERT(world.controls == controls);
  RC_ASSERT(!world.reader.in_frame());
  for (std::size_t i = 0; i < payloads.size(); ++i) {
    if (world.discarded[i]) {
      RC_ASSERT(world.refuse_large);
      RC_ASSERT(world.payloads[i].length == 0u);
    } else {
      RC_ASSERT(as_text(world.payloads[i].bytes()) == payloads[i]);
    }
  }
}

// A cut connection must never hand out a frame that did not come whole.
TEST(FrameReader, ATruncatedFrameIsNeverAFrame) {
  std::string bytes = frame_of(FrameType::publish, 1, pattern(100, 1), pattern(300, 2));
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    World world;
    EXPECT_EQ(world.feed(std::string_view{bytes}.substr(0, size)), FrameReader::Step::need_bytes) << size;
    EXPECT_TRUE(world.types.empty()) << size;
    EXPECT_EQ(world.reader.in_frame(), size > 0) << size;
  }
}

// What browsers, TLS clients and scanners send first is known by its first four bytes, and costs nothing.
TEST(FrameReader, GarbageIsRefusedByItsFirstFourBytesWithoutAllocating) {
  for (std::string_view start : {std::string_view{"GET / HTTP/1.1\r\n"}, std::string_view{"\x16\x03\x01\x02\x00\x01", 6}, std::string_view{"SSH-2.0-"},
                                 std::string_view{"\0\0\0\0", 4}, std::string_view{"\x0f\0\0\0", 4}, std::string_view{"\xff\xff\xff\xff", 4},
                                 std::string_view{"\xff\xff\xff\x7f", 4}, std::string_view{"\x00\x00\x00\x80", 4}}) {
    World world{false};
    EXPECT_EQ(world.feed(start.substr(0, 4)), FrameReader::Step::bad) << start;
    EXPECT_LE(world.held_most, 4'096u);
    EXPECT_EQ(world.feed("more"), FrameReader::Step::bad);
  }
}

// A length field is a claim: memory follows what came, before the hello as well as after it.
TEST(FrameReader, ALyingLengthTakesNoMemory) {
  World world{false};
  std::string lie = frame_of(FrameType::hello, 0, pattern(60'000, 1)).substr(0, 200);
  EXPECT_EQ(world.feed(lie), FrameReader::Step::need_bytes);
  EXPECT_LE(world.held_most, 4'096u);

  World large;
  std::string header = frame_of(FrameType::publish, 1, "").substr(0, 20);
  store_le(reinterpret_cast<std::byte*>(header.data()), std::uint32_t{32u << 20});
  for (char c : header) {
    MutableBytes space = large.reader.space();
    space[0] = static_cast<std::byte>(c);
    large.reader.received(1);
    (void)(large.reader.next() == FrameReader::Step::large);
  }
  EXPECT_EQ(large.reader.next(), FrameReader::Step::large);
  EXPECT_LE(large.reader.held_bytes(), 4'096u) << "memory is taken when the owner says so";
}

TEST(FrameReader, HalfReadBeforeHelloCostsInProportionToWhatCame) {
  World world{false};
  std::string frame = frame_of(FrameType::hello, 0, pattern(60'000, 1));
  EXPECT_EQ(world.feed(std::string_view{frame}.substr(0, 10'000), 100), FrameReader::Step::need_bytes);
  EXPECT_LE(world.held_most, 16'384u);
  EXPECT_EQ(world.feed(std::string_view{frame}.substr(10'000)), FrameReader::Step::need_bytes);
  EXPECT_EQ(world.types.size(), 1u);
}

TEST(FrameReader, LimitsHoldOnBothSidesOfTheHello) {
  World before{false};
  EXPECT_EQ(before.feed(frame_of(FrameType::hello, 0, pattern(limits::kFrameBytesBeforeHelloMax - 20, 1))), FrameReader::Step::need_bytes);
  EXPECT_EQ(before.types.size(), 1u);
  World over{false};
  EXPECT_EQ(over.feed(frame_of(FrameType::hello, 0, pattern(limits::kFrameBytesBeforeHelloMax - 19, 1))), FrameReader::Step::bad);
  World control;
  EXPECT_EQ(control.feed(frame_of(FrameType::metadata, 1, pattern(limits::kControlBytesMax + 1, 1)).substr(0, 20)), FrameReader::Step::bad);
  World fits;
  EXPECT_EQ(fits.feed(frame_of(FrameType::metadata, 1, pattern(limits::kControlBytesMax, 1))), FrameReader::Step::need_bytes);
  EXPECT_EQ(fits.types.size(), 1u);
}

TEST(FrameReader, AControlLengthPastTheFrameIsBad) {
  std::string frame = frame_of(FrameType::publish, 1, "abc", "payload");
  for (std::uint32_t control : {11u, 12u, 255u, 0x7fffffffu, 0xffffffffu, 0xfffffff0u}) {
    store_le(reinterpret_cast<std::byte*>(frame.data()) + 16, control);
    World world;
    EXPECT_EQ(world.feed(frame), FrameReader::Step::bad) << control;
    EXPECT_TRUE(world.types.empty());
  }
}

// The hot tail keeps payloads for long: a small one must not keep a large buffer, and a large one must not be copied.
TEST(FrameReader, PayloadsKeepNoMoreThanTheyNeed) {
  World world;
  std::string small = frame_of(FrameType::publish, 1, "control", pattern(200, 1));
  std::string large = frame_of(FrameType::publish, 1, "control", pattern(300'000, 2));
  EXPECT_EQ(world.feed(small + small + large + large), FrameReader::Step::need_bytes);
  ASSERT_EQ(world.payloads.size(), 4u);
  EXPECT_EQ(world.payloads[0].owner.size(), 200u);
  EXPECT_NE(world.payloads[0].owner.data(), world.payloads[1].owner.data());
  for (int i : {2, 3}) {
    EXPECT_LE(world.payloads[i].owner.size(), large.size() + FrameReader::kLookahead);
    EXPECT_GT(world.payloads[i].offset, 0u) << "a part of the received frame, not a copy";
  }
}

// A stream of large batches is received straight into their buffers: only the look-ahead is copied.
TEST(FrameReader, LargeFramesInARowNeedOneReadEach) {
  World world;
  std::string large = frame_of(FrameType::publish, 1, "control", pattern(300'000, 2));
  EXPECT_EQ(world.feed(large), FrameReader::Step::need_bytes);
  std::string stream = large + large + large;
  std::string_view rest = stream;
  int reads = 0;
  while (world.types.size() < 4) {
    MutableBytes space = world.reader.space();
    std::size_t count = std::min(space.size(), rest.size());
    std::memcpy(space.data(), rest.data(), count);
    rest.remove_prefix(count);
    world.reader.received(count);
    ++reads;
    EXPECT_EQ(world.take(), FrameReader::Step::need_bytes);
  }
  EXPECT_LE(reads, 4) << "one short read finds the first header, then one for each frame";
}

TEST(FrameReader, AnIdleConnectionGivesItsLargeBufferBack) {
  World world;
  std::string many;
  for (int i = 0; i < 2'000; ++i) many += frame_of(FrameType::ping, 0, pattern(100, 1));
  EXPECT_EQ(world.feed(many), FrameReader::Step::need_bytes);
  EXPECT_GT(world.reader.held_bytes(), 4'096u) << "busy: larger reads";
  for (int i = 0; i < 40; ++i) EXPECT_EQ(world.feed(frame_of(FrameType::ping, 0, "x")), FrameReader::Step::need_bytes);
  EXPECT_EQ(world.reader.held_bytes(), 4'096u);
}

}  // namespace
}  // namespace tailrace::broker::native
