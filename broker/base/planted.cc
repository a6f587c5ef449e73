#include "base/planted.h"

#include <array>
#include <atomic>
#include <cstdlib>

namespace tailrace::broker {
namespace {

constexpr std::array<std::string_view, static_cast<std::size_t>(PlantedBug::count_)> kNames{
    "none",           "no_dsync",            "ack_before_completion", "ack_out_of_order",      "recycle_too_early",
    "checkpoint_without_term", "accept_stale_frame", "segment_before_wal", "replay_old_truncation", "remainder_not_copied",
    "directory_not_synced", "cut_despite_proof", "forget_dedup_window", "decoder_length"};

}  // namespace

PlantedBug planted_bug_named(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<PlantedBug>(i);
  }
  return PlantedBug::none;
}

std::string_view name_of(PlantedBug bug) { return kNames[static_cast<std::size_t>(bug)]; }

#ifdef TAILRACE_PLANTED_BUGS
namespace {
std::atomic<PlantedBug>& current() {
  static std::atomic<PlantedBug> bug = [] {
    const char* name = std::getenv("TAILRACE_PLANT");
    return name ? planted_bug_named(name) : PlantedBug::none;
  }();
  return bug;
}
}  // namespace

void plant(PlantedBug bug) { current().store(bug, std::memory_order_relaxed); }
PlantedBug planted_now() { return current().load(std::memory_order_relaxed); }
#endif

}  // namespace tailrace::broker
