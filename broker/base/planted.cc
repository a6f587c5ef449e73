#include "base/planted.h"

#include <array>
#include <atomic>
#include <cstdlib>

namespace tailrace::broker {
namespace {

struct Known {
  std::string_view name;
  std::string_view kind;
};

constexpr std::array<Known, static_cast<std::size_t>(PlantedBug::count_)> kKnown{{
    {"none", "none"},
    {"no_dsync", "log"},
    {"ack_before_completion", "log"},
    {"ack_out_of_order", "log"},
    {"recycle_too_early", "log"},
    {"checkpoint_without_term", "log"},
    {"accept_stale_frame", "log"},
    {"segment_before_wal", "log"},
    {"replay_old_truncation", "log"},
    {"remainder_not_copied", "log"},
    {"directory_not_synced", "log"},
    {"cut_despite_proof", "log"},
    {"forget_dedup_window", "log"},
    {"reuse_buffer_early", "log"},
    {"late_segment_write", "log"},
    {"decoder_length", "decoder"},
    {"raft_send_before_hard_state", "durability"},
    {"raft_vote_twice", "vote"},
    {"raft_vote_for_shorter_log", "vote"},
    {"raft_pre_vote_echoes_term", "vote"},
    {"raft_ignore_directory", "vote"},
    {"raft_forget_vote", "durability"},
    {"raft_forget_term", "durability"},
    {"raft_ack_before_flush", "durability"},
    {"raft_count_own_unflushed", "commit"},
    {"raft_count_received", "commit"},
    {"raft_quorum_of_half", "commit"},
    {"raft_commit_old_term", "commit"},
    {"raft_commit_unmatched", "commit"},
    {"raft_accept_gone_prefix", "matching"},
    {"raft_truncate_below_commit", "matching"},
    {"raft_trust_old_life", "commit"},
    {"raft_snapshot_over_newer", "snapshot"},
    {"raft_log_start_goes_back", "log start"},
    {"raft_learner_counts", "membership"},
    {"raft_removed_leader_counts", "membership"},
    {"raft_change_before_term_start", "membership"},
    {"raft_two_changes", "membership"},
    {"raft_keep_rolled_back_members", "membership"},
    {"raft_serve_before_term_start", "leadership"},
    {"raft_lost_votes", "lost tail"},
    {"raft_cut_leads_at_once", "lost tail"},
    {"raft_cut_forgets_floor", "lost tail"},
    {"raft_late_persist_counts", "durability"},
    {"raft_snapshot_without_producers", "producers"},
    {"raft_forget_producers", "producers"},
    {"raft_keep_rolled_back_producers", "producers"},
    {"raft_confirm_without_quorum", "leadership"},
    {"raft_lead_without_quorum", "leadership"},
    {"raft_pre_vote_counts", "vote"},
    {"raft_transfer_crowns", "leadership"},
    {"raft_take_stale_term", "matching"},
    {"raft_previous_not_compared", "matching"},
    {"raft_keep_conflict", "matching"},
    {"raft_report_whole_log", "matching"},
    {"raft_matched_survives_term", "matching"},
    {"raft_old_reply_counts", "commit"},
    {"raft_ignore_rejection", "progress"},
    {"raft_window_never_frees", "progress"},
    {"raft_lost_run_not_sent_again", "progress"},
    {"raft_snapshot_old_members", "snapshot"},
    {"raft_log_start_uncommitted", "log start"},
    {"raft_suspicion_ends_early", "lost tail"},
    {"raft_floor_ignores_reports", "lost tail"},
    {"raft_ask_old_members", "lost tail"},
    {"stream_judge_committed_only", "stream"},
    {"stream_refuse_uncommitted", "stream"},
    {"stream_no_roll_back", "stream"},
    {"stream_stale_lookup", "stream"},
    {"stream_index_ahead", "stream"},
    {"stream_retry_first_id", "stream"},
    {"stream_keep_stale_head", "stream"},
    {"group_skip_fencing", "group"},
    {"group_two_owners", "group"},
    {"group_commit_unfenced", "group"},
    {"group_forgets_to_expire", "group"},
    {"group_answer_early", "group"},
    {"group_forget_members", "group"},
    {"group_rewrite_loses", "group"},
    {"queue_past_credit", "queue"},
    {"queue_key_order", "queue"},
    {"queue_forget_attempts", "queue"},
    {"queue_double_dead_letter", "queue"},
    {"queue_answer_early", "queue"},
    {"queue_letter_new_producer", "queue"},
    {"queue_letter_uncommitted", "queue"},
    {"queue_letter_not_resent", "queue"},
    {"queue_snapshot_loses_delayed", "queue"},
}};

}  // namespace

PlantedBug planted_bug_named(std::string_view name) {
  for (std::size_t i = 0; i < kKnown.size(); ++i) {
    if (kKnown[i].name == name) return static_cast<PlantedBug>(i);
  }
  return PlantedBug::none;
}

std::string_view name_of(PlantedBug bug) { return kKnown[static_cast<std::size_t>(bug)].name; }
std::string_view class_of(PlantedBug bug) { return kKnown[static_cast<std::size_t>(bug)].kind; }

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
