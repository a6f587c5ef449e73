#pragma once
/// Planted bugs prove that a check can fail: each is compiled in only where tests run (TAILRACE_PLANTED_BUGS) and chosen
/// at run time, by plant() or by the environment variable TAILRACE_PLANT. In a release build planted() is a constant
/// false and costs nothing.
#include <string_view>

namespace tailrace::broker {

enum class PlantedBug {
  none,
  no_dsync,                 // WAL writes without RWF_DSYNC
  ack_before_completion,    // acknowledged when submitted
  ack_out_of_order,         // acks do not wait for the contiguous prefix
  recycle_too_early,        // a WAL file is reused before its segments are synced
  checkpoint_without_term,  // term and vote left out of the checkpoint
  accept_stale_frame,       // recovery ignores the salt of a recycled file
  segment_before_wal,       // a segment is written ahead of its frame
  replay_old_truncation,    // recovery ignores applied_through for truncations
  remainder_not_copied,     // the unsynced tail remainder is not copied forward
  directory_not_synced,     // new segment files without a directory sync
  cut_despite_proof,        // a bad frame is cut although a later frame proves it was durable
  forget_dedup_window,      // producer state is not restored
  reuse_buffer_early,       // a commit's buffer is given out again before its write has completed
  late_segment_write,       // segment writes are not waited for: one may land over what a truncation made place for
  decoder_length,           // decoders trust a length field (for the fuzz targets)
  // Replication.
  raft_send_before_hard_state,      // messages leave before the term and vote they depend on are durable
  raft_vote_twice,                  // a second vote in one term
  raft_vote_for_shorter_log,        // a vote for a log that ends before ours
  raft_pre_vote_echoes_term,        // a pre-vote rejection carries the asker's term
  raft_ignore_directory,            // a voter is its node, whatever directory it has
  raft_forget_vote,                 // a restart forgets the vote
  raft_forget_term,                 // a restart forgets the term
  raft_ack_before_flush,            // a follower reports entries that are not durable
  raft_count_own_unflushed,         // a leader counts itself up to its log's end
  raft_count_received,              // a leader counts what followers have only received
  raft_quorum_of_half,              // half of an even number of voters is enough
  raft_commit_old_term,             // an entry of an older term commits by counting (Raft paper, figure 8)
  raft_commit_unmatched,            // a follower commits entries that were not compared with the leader's
  raft_accept_gone_prefix,          // a delayed append is taken although the prefix it names is gone
  raft_truncate_below_commit,       // committed entries are cut when a leader's differ
  raft_trust_old_life,              // what a member acknowledged before it came back counts on
  raft_snapshot_over_newer,         // a late snapshot replaces a longer log
  raft_log_start_goes_back,         // a restart forgets it
  raft_learner_counts,              // learners are counted as voters
  raft_removed_leader_counts,       // a leader that removed itself goes on and counts itself
  raft_change_before_term_start,    // membership changes before the term start is committed
  raft_two_changes,                 // a second membership change before the first is committed
  raft_keep_rolled_back_members,    // a membership stays in force when its entry is cut
  raft_serve_before_term_start,     // a new leader serves before its term start is committed
  raft_lost_votes,                  // a replica that lost entries votes as if it had them
  raft_cut_leads_at_once,           // a replica that cut a tail stands without the others' reports
  raft_cut_forgets_floor,           // a replica that cut a tail votes for logs shorter than what it had
  raft_late_persist_counts,         // a report about entries that were cut counts for those in their place
  raft_snapshot_without_producers,  // a follower that restarts at a snapshot does not take its producers
  raft_forget_producers,            // a leader that restarted does not know its producers
  raft_keep_rolled_back_producers,  // what a truncation took stays known as a duplicate
  raft_confirm_without_quorum,      // leadership is confirmed without asking anybody
  raft_lead_without_quorum,         // a leader that reaches nobody goes on leading
  raft_pre_vote_counts,             // a pre-vote's grant counts as a vote
  raft_transfer_crowns,             // the target of a hand-over leads without being elected
  raft_take_stale_term,             // appends of an older term are taken
  raft_previous_not_compared,       // the entry before a run may be another one
  raft_keep_conflict,               // an entry of another term at the same place is taken for the same
  raft_report_whole_log,            // a follower reports its whole log as equal to the leader's
  raft_matched_survives_term,       // what agreed with an earlier leader counts as agreeing with this one
  raft_old_reply_counts,            // an answer given in an older term counts in this one
  raft_ignore_rejection,            // a leader asks at the same place for ever
  raft_window_never_frees,          // bytes in flight are never given back
  raft_lost_run_not_sent_again,     // a run that was lost is not noticed
  raft_snapshot_old_members,        // a snapshot does not bring its members
  raft_log_start_uncommitted,       // a log start is told before it is committed
  raft_suspicion_ends_early,        // a replica that lost entries is whole as soon as it hears of a leader
  raft_floor_ignores_reports,       // the others' reports do not raise the floor
  raft_ask_old_members,             // only the voters that its own log names are asked what was lost
  // Event streams.
  stream_judge_committed_only,  // expected versions are held against the index, not against what is appended
  stream_refuse_uncommitted,    // a refusal does not wait for the event that it rests on
  stream_no_roll_back,          // what a truncation of the log took stays known
  stream_stale_lookup,          // a head that was looked up is used although newer events went into the index meanwhile
  stream_index_ahead,           // the index says that it has reached what it does not hold yet
  stream_retry_first_id,        // a retry is known by its first id alone
  stream_keep_stale_head,       // a warm head is not renewed by what the index takes
  // Consumer groups.
  group_skip_fencing,       // heartbeats of an older generation are taken
  group_two_owners,         // a partition is given on before its owner let go
  group_commit_unfenced,    // offsets are taken from anybody
  group_forgets_to_expire,  // a silent member stays
  group_answer_early,       // a coordinator answers before it is committed
  group_forget_members,     // members are not stored
  group_rewrite_loses,      // a log that is written anew lacks the last offset of each group
  // Queue groups.
  queue_past_credit,             // more is delivered than there is credit for
  queue_key_order,               // a record is delivered while an earlier one of its key is not settled
  queue_forget_attempts,         // attempts are counted anew
  queue_double_dead_letter,      // a record that is buried stays condemned
  queue_answer_early,            // deliveries and settles are answered before they are committed
  queue_letter_new_producer,     // a dead letter that is sent again is another producer's
  queue_letter_uncommitted,      // a dead letter leaves before it is stored that it is one
  queue_letter_not_resent,       // what was on its way is forgotten by a restart
  queue_snapshot_loses_delayed,  // a snapshot takes a delayed record for a leased one
  count_,
};

[[nodiscard]] PlantedBug planted_bug_named(std::string_view name);  // none when unknown
[[nodiscard]] std::string_view name_of(PlantedBug bug);
/// What kind of promise it breaks: "vote", "commit", ...
[[nodiscard]] std::string_view class_of(PlantedBug bug);

#ifdef TAILRACE_PLANTED_BUGS
/// Process-wide; tests are single-threaded where they plant. Read once from the environment at first use.
void plant(PlantedBug bug);
[[nodiscard]] PlantedBug planted_now();
[[nodiscard]] inline bool planted(PlantedBug bug) { return planted_now() == bug; }
#else
[[nodiscard]] constexpr bool planted(PlantedBug) { return false; }
#endif

}  // namespace tailrace::broker
