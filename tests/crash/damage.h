#pragma once
/// Items 3, 6, 7 and 8 of storage.md section 5: bytes of a log at rest are changed, lost, replaced or written elsewhere. The
/// oracle: acknowledged records read back as they were, or an explicit error; nothing shrinks without a word.
#include <functional>

#include "tests/crash/scene.h"

namespace tailrace::broker::crash {

/// A small log at rest, with its oracle.
struct AtRest {
  Setup setup;
  Oracle oracle;
  sim::DiskImage image;
  sim::DiskImage older;      // the same disk some time before
  bool quiet = false;        // the idle mark is durable: nothing may be cut
};
enum class Rest {
  quiet,    // power cut after the idle mark
  stopped,  // clean stop
  cut,      // power cut with commits in flight
};
[[nodiscard]] AtRest small_log(std::uint64_t seed, Rest rest);

struct DamageSweep {
  std::vector<std::string> violations;
  std::uint64_t judged = 0;
  std::uint64_t noticed = 0;  // an error at start, a damaged partition, a corrupt frame, or a repaired copy
  std::uint64_t cut = 0;      // counted as torn, where that is allowed
};
/// One bit, at every `stride`-th byte of every file whose path contains `part`; the bit follows from the position, or each
/// bit in turn.
enum class Bits { one, every };
[[nodiscard]] DamageSweep flip_bits(const AtRest& log, std::string_view part, std::uint64_t stride, std::uint64_t seed, Bits bits = Bits::one);
/// Every bit of the 17 bytes that lie outside a batch's own checksum, of every `stride`-th batch in a segment.
[[nodiscard]] DamageSweep flip_batch_fronts(const AtRest& log, std::size_t stride, std::uint64_t seed);
/// Sectors zeroed, sectors unreadable, files truncated at each 4 KiB, files deleted, older versions restored.
[[nodiscard]] DamageSweep lose_sectors(const AtRest& log, std::uint64_t seed);
[[nodiscard]] DamageSweep lose_files(const AtRest& log, std::uint64_t seed);

/// A disk that says "durable" and is not, under one commit of several (item 3).
[[nodiscard]] std::vector<std::string> lying_flush(std::uint64_t seed);
/// A WAL or segment write lands somewhere else (item 8).
[[nodiscard]] std::vector<std::string> misdirected_writes(std::uint64_t seed);

/// The last commit, in flight, torn: at every byte, or by every subset of blocks, or by seeded subsets of sectors (item 1).
struct TornSweep {
  std::vector<std::string> violations;
  std::uint64_t judged = 0;
  std::uint64_t survived = 0;  // the commit was whole
  std::uint64_t torn = 0;      // counted as a torn tail
};
[[nodiscard]] TornSweep tear_at_every_byte(std::uint64_t seed, std::size_t blocks, sim::Fate::Rest rest, bool recycled, std::uint64_t stride = 1);
[[nodiscard]] TornSweep tear_every_subset(std::uint64_t seed, std::size_t blocks, sim::Fate::Rest rest, bool recycled);
[[nodiscard]] TornSweep tear_by_seeds(std::uint64_t seed, std::size_t blocks, std::uint64_t count, bool recycled);

}  // namespace tailrace::broker::crash
