#pragma once
/// Histories that broke earlier drafts of the design (testing.md section 5), as scenes on the simulated disk. Each answers
/// its violations: none in the product, some where its bug is planted.
#include <cstdint>
#include <string>
#include <vector>

namespace tailrace::broker::crash {

using Violations = std::vector<std::string>;

/// 1. A vote is given, the WAL file that holds it is recycled, the node restarts: term and vote must come from the checkpoint.
[[nodiscard]] Violations vote_forgotten(std::uint64_t seed);
/// 2. Recycling forces the last partial block of a segment out; the next append rewrites that block; the write tears.
[[nodiscard]] Violations padded_tail_torn(std::uint64_t seed);
/// 3. File n+1 of the WAL has frames already; the last commits of n rot.
[[nodiscard]] Violations rot_at_the_end_of_a_file(std::uint64_t seed);
/// 4. A segment write lands, its frame does not, power fails.
[[nodiscard]] Violations segment_ahead_of_the_wal(std::uint64_t seed);
/// 5. Truncate in term 3, append in term 4, flush, checkpoint, crash: the truncation must not cut again.
[[nodiscard]] Violations old_truncation_replayed(std::uint64_t seed);
/// 6. A segment write is in flight, the partition truncates and appends under a new term, the late write lands.
[[nodiscard]] Violations late_write(std::uint64_t seed);
/// 6d. The same where the bytes under the late write belong to records that are nowhere else any more when it lands.
[[nodiscard]] Violations late_write_over_new_bytes(std::uint64_t seed);
/// 6c. The log start and the vote are moved at every moment of a truncation.
[[nodiscard]] Violations moved_while_truncating(std::uint64_t seed);
/// 6b. A quick restart while an earlier process's writes are still queued.
[[nodiscard]] Violations late_write_after_restart(std::uint64_t seed);
/// 7. A record holds the bytes of a frame; after damage the scan must not resynchronise into it.
[[nodiscard]] Violations frame_inside_a_payload(std::uint64_t seed);
/// 7b. The same with frames forged to be right in all but the salt.
[[nodiscard]] Violations forged_frame_inside_a_payload(std::uint64_t seed);
/// 16. Term starts on an empty partition move no offset that a client sees.
[[nodiscard]] Violations empty_topic_with_an_end_offset(std::uint64_t seed);

// Scenes of storage.md section 5 that planted bugs need.
/// New segments, the WAL recycled past them, every un-synced name lost.
[[nodiscard]] Violations segment_names_lost(std::uint64_t seed);
/// Everything un-flushed is lost, at moments around recycling.
[[nodiscard]] Violations crash_around_recycling(std::uint64_t seed);
/// Several commits in flight: every subset of them lands (item 2).
[[nodiscard]] Violations pipelined_commits(std::uint64_t seed);
/// A recycled file is torn at its new tail: old frames follow with valid checksums (item 8).
[[nodiscard]] Violations stale_frames_behind_the_tail(std::uint64_t seed);
/// Idempotent producers retry after a crash and after their frames left the WAL.
[[nodiscard]] Violations retries_after_a_crash(std::uint64_t seed);

}  // namespace tailrace::broker::crash
