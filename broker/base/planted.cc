#include "base/planted.h"

#include <array>
#include <atomic>
#include <cstdlib>

namespace tailrace::broker {
namespace {

constexpr std::array<std::string_view, static_cast<std::size_t>(PlantedBug::count_)> kNames{
    "none",           "no_dsync",            "ack_before_completion", "ack_out_of_order",      "recycle_too_early",
    "checkpoint_without_term", "accept_stale_frame", "segment_before_wal", "replay_old_truncation", "remainder_not_copied",
    "directory_not_synced", "cut_despite_proof", "forget_dedup_window", "decoder_length",
    "raft_send_before_hard_state", "raft_vote_twice", "raft_vote_for_shorter_log", "raft_pre_vote_echoes_term",
    "raft_ignore_directory", "raft_forget_vote", "raft_forget_term", "raft_ack_before_flush",
    "raft_count_own_unflushed", "raft_count_received", "raft_quorum_of_half", "raft_commit_old_term",
    "raft_commit_unmatched", "raft_accept_gone_prefix", "raft_truncate_below_commit", "raft_trust_old_life",
    "raft_snapshot_over_newer", "raft_log_start_goes_back", "raft_learner_counts", "raft_removed_leader_counts",
    "raft_change_before_term_start", "raft_two_changes", "raft_keep_rolled_back_members", "raft_serve_before_term_start",
    "raft_lost_votes", "raft_cut_leads_at_once", "raft_cut_forgets_floor", "raft_late_persist_counts",
    "raft_snapshot_without_producers", "raft_forget_producers"};

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
