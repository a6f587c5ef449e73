#pragma once
/// Planted bugs prove that a check can fail: each is compiled in only where tests run (TAILRACE_PLANTED_BUGS) and chosen
/// at run time, by plant() or by the environment variable TAILRACE_PLANT. In a release build planted() is a constant
/// false and costs nothing.
#include <string_view>

namespace tailrace::broker {

enum class PlantedBug {
  none,
  no_dsync,                       // WAL writes without RWF_DSYNC
  ack_before_completion,          // acknowledged when submitted
  ack_out_of_order,               // acks do not wait for the contiguous prefix
  recycle_too_early,              // a WAL file is reused before its segments are synced
  checkpoint_without_term,        // term and vote left out of the checkpoint
  accept_stale_frame,             // recovery ignores the salt of a recycled file
  segment_before_wal,             // a segment is written ahead of its frame
  replay_old_truncation,          // recovery ignores applied_through for truncations
  remainder_not_copied,           // the unsynced tail remainder is not copied forward
  directory_not_synced,           // new segment files without a directory sync
  cut_despite_proof,              // a bad frame is cut although a later frame proves it was durable
  forget_dedup_window,            // producer state is not restored
  decoder_length,                 // decoders trust a length field (for the fuzz targets)
  count_,
};

[[nodiscard]] PlantedBug planted_bug_named(std::string_view name);  // none when unknown
[[nodiscard]] std::string_view name_of(PlantedBug bug);

#ifdef TAILRACE_PLANTED_BUGS
/// Process-wide; tests are single-threaded where they plant. Read once from the environment at first use.
void plant(PlantedBug bug);
[[nodiscard]] PlantedBug planted_now();
[[nodiscard]] inline bool planted(PlantedBug bug) { return planted_now() == bug; }
#else
[[nodiscard]] constexpr bool planted(PlantedBug) { return false; }
#endif

}  // namespace tailrace::broker
