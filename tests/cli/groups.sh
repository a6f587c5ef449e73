#!/usr/bin/env bash
# Consumer groups from the command line: tail -g, group ls|describe|members|lag|explain|reset|delete, across restarts and kills.
source "$(dirname "$0")/lib.sh" "$@"
start_broker
t=$tailrace

exits 0 "no groups yet" "$t" group ls
holds "says how one begins" "--commit" "$work/err"
exits 3 "a group that is not there" "$t" group describe none
holds "has its code" "error E2041:" "$work/err"
exits 0 "lag of nothing" "$t" group lag

"$t" topic create orders --partitions 4 >/dev/null
seq 1 1000 | "$t" pub orders --key-regex '.*' -q
exits 0 "a member reads ten and stops" "$t" tail orders -g g --commit -n 10 -o raw
same "ten were printed" 10 "$(wc -l <"$work/out" | tr -d ' ')"
cp "$work/out" seen
lag() { "$t" group lag "${1:-g}" -o jsonl | grep -o '"lag_records":[0-9]*' | cut -d: -f2 | awk '{ n += $1 } END { print n + 0 }'; }
same "the rest is the lag, of all partitions" 990 "$(lag)"
exits 0 "without --commit it is only looked at" "$t" tail orders -g g -n 3 -o raw
same "and nothing moves" 990 "$(lag)"

kill -9 "$broker"; wait "$broker" 2>/dev/null
start_broker
same "offsets survive a kill" 990 "$(lag)"
exits 0 "another member goes on" "$t" tail orders -g g --commit -o raw
same "with the rest" 990 "$(wc -l <"$work/out" | tr -d ' ')"
cat "$work/out" >>seen
same "every record once" "$(seq 1 1000)" "$(sort -n seen)"
same "nothing is left" 0 "$(lag)"
exits 3 "nothing new, with --fail-empty" "$t" tail orders -g g --commit --fail-empty
exits 0 "explain" "$t" group explain g
holds "names the end of the log" "end_of_log" "$work/out"

exits 6 "reset shows a plan" "$t" group reset g --to -1
holds "and what would be read again" "again 1" "$work/out"
same "and does nothing" 0 "$(lag)"
exits 0 "reset --apply" "$t" group reset g --to start --apply --undo-file undo.json
same "all of it is to be read again" 1000 "$(lag)"
exits 2 "an undo file is not overwritten" "$t" group reset g --to end --apply --undo-file undo.json
exits 2 "an undo file of another group" "$t" group reset h --to undo:undo.json --apply
holds "says so" "of group g" "$work/err"
exits 0 "undo" "$t" group reset g --to undo:undo.json --apply --undo-file redo.json
same "is as before" 0 "$(lag)"
exits 6 "an offset of one partition" "$t" group reset g --topic orders -p 0 --to 5
exits 2 "an offset of all" "$t" group reset g --to 5
exits 3 "a partition that is not there" "$t" group reset g --topic orders -p 9 --to start
exits 2 "a new group needs a topic" "$t" group reset fresh --to end --apply
exits 0 "a new group" "$t" group reset fresh --topic orders --to end --apply
same "begins where it was put" 0 "$(lag fresh)"

# Two members, one of them killed: all is read, and the plan of a reset is refused while they live.
"$t" tail orders -g two --commit -F -o raw >first 2>/dev/null & a=$!
"$t" tail orders -g two --commit -F -o raw >second 2>/dev/null & b=$!
shared() { "$t" group members two -o jsonl 2>/dev/null | grep -c '"reads":\[{"topic":"orders","partition":[0-9]},{"topic":"orders","partition":[0-9]}\]'; }
for _ in $(seq 200); do [ "$(shared)" = 2 ] && break; sleep 0.05; done
same "both read two partitions" 2 "$(shared)"
exits 6 "reset is refused while they read" "$t" group reset two --to start --apply
holds "and says how" "--kick" "$work/err"
exits 6 "so is delete" "$t" group delete two --yes
kill -9 "$a"; wait "$a" 2>/dev/null
seq 1001 1400 | "$t" pub orders --key-regex '.*' -q
for _ in $(seq 400); do [ "$(lag two)" = 0 ] && break; sleep 0.05; done
same "the other takes over what the killed one had" 0 "$(lag two)"
kill -INT "$b"; wait "$b"
same "every record was printed" "$(seq 1 1400)" "$(sort -nu first second)"

exits 2 "--commit without a group" "$t" tail orders --commit
exits 2 "-g with --until and --commit" "$t" tail orders -g g --commit --until end
exits 2 "-g with -p and --commit" "$t" tail orders -g g --commit -p 0
exits 3 "a topic that is not there" "$t" tail none -g g --commit
exits 6 "delete, dry" "$t" group delete g --dry-run
exits 0 "delete" "$t" group delete g --yes
exits 3 "is gone" "$t" group describe g
exits 0 "a stop" stop_broker
finish
