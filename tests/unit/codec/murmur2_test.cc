#include "codec/murmur2.h"

#include <gtest/gtest.h>

namespace tailrace::broker::codec {
namespace {

// A key must land where a Java client would put it; these are the vectors of Kafka's own test of this function.
TEST(Murmur2, GivesTheJavaClientsHashes) {
  EXPECT_EQ(murmur2(as_bytes("21")), -973932308);
  EXPECT_EQ(murmur2(as_bytes("foobar")), -790332482);
  EXPECT_EQ(murmur2(as_bytes("a-little-bit-long-string")), -985981536);
  EXPECT_EQ(murmur2(as_bytes("a-little-bit-longer-string")), -1486304829);
  EXPECT_EQ(murmur2(as_bytes("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8")), -58897971);
  EXPECT_EQ(murmur2(as_bytes("abc")), 479470107);
}

// Negative hashes lose their sign bit (they are not negated), and the remainder of that is the partition.
TEST(Murmur2, ChoosesThePartitionFromThePositiveHash) {
  EXPECT_EQ(partition_for_key(as_bytes("abc"), 7), PartitionIndex{479470107 % 7});
  EXPECT_EQ(partition_for_key(as_bytes("21"), 7), PartitionIndex{static_cast<std::int32_t>((2147483648LL - 973932308LL) % 7)});
  EXPECT_EQ(partition_for_key(as_bytes("anything"), 1), PartitionIndex{0});
}

// Bytes above 0x7f in the tail are unsigned in the hash; sign extension would move such keys.
TEST(Murmur2, TreatsBytesAsUnsigned) {
  std::byte key[] = {std::byte{'a'}, std::byte{'b'}, std::byte{'c'}, std::byte{'d'}, std::byte{0xff}};
  // By hand from the specification: one word "abcd", tail 0x000000ff.
  std::uint32_t m = 0x5bd1e995, h = 0x9747b28c ^ 5u, k = 0x64636261u * m;
  k = (k ^ k >> 24) * m;
  h = (h * m) ^ k;
  h = (h ^ 0xffu) * m;
  h = (h ^ h >> 13) * m;
  h ^= h >> 15;
  EXPECT_EQ(murmur2(key), static_cast<std::int32_t>(h));
}

}  // namespace
}  // namespace tailrace::broker::codec
