#!/usr/bin/env bash
# Plays scripts on broker/raft and on etcd's raft library, and compares the two after each event: README.md of this folder.
#   run.sh [A..B [EVENTS]]  the scripts of this folder, and random ones from these seeds (default 1..3000) of about so many events (60)
#   run.sh --mutants        the same for planted bugs, each of which must show as a difference
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
root=../../..
ours=$root/build/dev/tests/raft_reference_ours
etcd=$root/build/dev/tests/raft_reference_etcd

if ! command -v go >/dev/null; then
  echo "raft-reference: skipped: there is no Go here (1.23 or later; docs/building.md)"
  exit 0
fi
"$root/dev" build-for-check dev raft_reference_ours
(cd etcd && go build -o "../$etcd" .)

# What the comparison is expected to find. The others of broker/base/planted.h are about what the scripts do not have (lost tails,
# replaced directories, producers, reads), or about what no event of theirs makes visible.
mutants=(
  raft_ack_before_flush raft_commit_old_term raft_commit_unmatched raft_count_own_unflushed raft_count_received raft_forget_term
  raft_forget_vote raft_ignore_rejection raft_late_persist_counts raft_lead_without_quorum raft_learner_counts raft_lost_run_not_sent_again
  raft_matched_survives_term raft_old_reply_counts raft_pre_vote_counts raft_pre_vote_echoes_term raft_previous_not_compared
  raft_quorum_of_half raft_send_before_hard_state raft_snapshot_old_members raft_take_stale_term raft_transfer_crowns
  raft_vote_for_shorter_log raft_vote_twice
)

both() { { "$ours" scripts/*.txt 2>/dev/null || true; "$ours" --seeds "$1" --events "${2:-60}"; } | "$etcd"; }

case "${1:-}" in
  --mutants)
    missed=0
    for bug in "${mutants[@]}"; do
      # A planted bug may also stop the process: that is seen as a script that ends in the middle.
      first=$(TAILRACE_PLANT=$bug both 1..600 2>/dev/null | sed -n '/: after .* events, \|: ends in the middle/{p;q}' || true)
      if [ -n "$first" ]; then
        printf '%-30s found   %s\n' "$bug" "$first"
      else
        printf '%-30s MISSED\n' "$bug"
        missed=$((missed + 1))
      fi
    done
    echo "$((${#mutants[@]} - missed)) of ${#mutants[@]} planted bugs differ from etcd's library"
    [ $missed = 0 ]
    ;;
  -*)
    echo "usage: ./dev raft-reference [A..B [EVENTS] | --mutants]" >&2
    exit 2
    ;;
  *)
    "$ours" scripts/*.txt >/dev/null  # says which script does not hold by itself
    both "${1:-1..3000}" "${2:-60}"
    ;;
esac
