#pragma once
/// The hash that decides where a keyed record goes, bit for bit as Kafka's Java client computes it, so that one key lands
/// in one partition whichever client wrote it.
/// Spec     MurmurHash2 (Austin Appleby, public domain), 32 bits, little endian, seed 0x9747b28c; Kafka
///          DefaultPartitioner: toPositive(murmur2(key)) % partitions, where toPositive clears the sign bit.
#include <cstdint>

#include "base/bytes.h"
#include "model/ids.h"

namespace tailrace::broker::codec {

[[nodiscard]] inline std::int32_t murmur2(Bytes key) {
  constexpr std::uint32_t kMultiplier = 0x5bd1e995, kSeed = 0x9747b28c;
  std::uint32_t hash = kSeed ^ static_cast<std::uint32_t>(key.size());
  for (; key.size() >= 4; key = key.subspan(4)) {
    std::uint32_t word = load_le<std::uint32_t>(key.data()) * kMultiplier;
    hash = hash * kMultiplier ^ (word ^ word >> 24) * kMultiplier;
  }
  if (!key.empty()) {
    for (std::size_t i = 0; i < key.size(); ++i) hash ^= std::to_integer<std::uint32_t>(key[i]) << (8 * i);
    hash *= kMultiplier;
  }
  hash = (hash ^ hash >> 13) * kMultiplier;
  return static_cast<std::int32_t>(hash ^ hash >> 15);
}

/// `partitions` > 0.
[[nodiscard]] inline PartitionIndex partition_for_key(Bytes key, std::int32_t partitions) {
  return PartitionIndex{(murmur2(key) & 0x7fffffff) % partitions};
}

}  // namespace tailrace::broker::codec
