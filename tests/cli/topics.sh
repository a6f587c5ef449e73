#!/usr/bin/env bash
# topic create|ls|describe|alter|delete|purge against the real broker: plans, confirmation, dry runs, exit codes.
source "$(dirname "$0")/lib.sh" "$@"
start_broker
t=$tailrace

exits 0 "no topics yet" "$t" topic ls
holds "says how to make one" "topic create" "$work/err"
exits 6 "a dry run of create says it would change something" "$t" topic create a --dry-run
exits 3 "and created nothing" "$t" topic describe a
exits 0 "create with keys" "$t" topic create a --partitions 3 -c retention_time=7d -c message_bytes_max=2MiB
exits 2 "an unknown topic key" "$t" topic create b -c retention_tme=7d
holds "has its code" "error E2035:" "$work/err"
holds "suggests the right one" "retention_time" "$work/err"
exits 2 "a bad value" "$t" topic create b -c retention_time=soon
exits 2 "a bad name" "$t" topic create 'no spaces'
exits 2 "the broker's own names" "$t" topic create __mine
exits 6 "names that differ in . and _ only clash" bash -c '"$0" topic create x.y && "$0" topic create x_y' "$t"
exits 0 "ls" "$t" topic ls -o raw
same "ls -o raw lists names" "$(printf 'a\nx.y')" "$(cat "$work/out")"
exits 0 "ls json" "$t" topic ls -o json
holds "ls json has its schema" '{"schema":"tailrace.topics.v1","topics":[{"name":"a",' "$work/out"
exits 0 "ls --internal" "$t" topic ls --internal -o raw
holds "shows __metadata" "__metadata" "$work/out"

seq 1 300 | "$t" pub a -q
exits 0 "describe" "$t" topic describe a
holds "describe counts records" "300 records" "$work/out"
holds "describe shows retention" "kept for 7d" "$work/out"
exits 0 "describe json" "$t" topic describe a -o json
same "high watermarks add up" 300 "$(grep -o '"high_watermark":[0-9]*' "$work/out" | cut -d: -f2 | paste -sd+ | bc 2>/dev/null || grep -o '"high_watermark":[0-9]*' "$work/out" | cut -d: -f2 | awk '{ n += $1 } END { print n }')"
exits 3 "describe what is not there" "$t" topic describe aa
exits 3 "close names" "$t" topic describe x.z
holds "are offered" "x.y" "$work/err"

exits 6 "a dry run of alter shows differences" "$t" topic alter a -c retention_time=30d --dry-run
holds "from and to" "retention_time: 7d -> 30d" "$work/out"
holds "nothing changed" "kept for 7d" <("$t" topic describe a)
exits 0 "a dry run without differences" "$t" topic alter a -c retention_time=7d --dry-run
exits 0 "alter" "$t" topic alter a -c retention_time=30d --partitions 5
holds "more partitions move keys" "another partition" "$work/err"
same "five partitions" 5 "$("$t" topic describe a -o json | grep -o '"log_start"' | wc -l)"
exits 2 "fewer partitions are refused" "$t" topic alter a --partitions 2
exits 0 "unset" "$t" topic alter a --unset retention_time
holds "back to the default" "kept for ever" <("$t" topic describe a)
exits 2 "nothing to change" "$t" topic alter a

"$t" topic create p -q >/dev/null
seq 0 99 | "$t" pub p -q
exits 6 "a dry run of purge" "$t" topic purge p -p 0 --before 40 --dry-run
holds "counts what would go" "would delete 40 records" "$work/out"
same "and deletes nothing" 100 "$("$t" tail p -o raw -q | wc -l)"
exits 2 "purge without a terminal needs --yes" "$t" topic purge p -p 0 --before 40
holds "and says so" "--yes" "$work/err"
exits 0 "purge before an offset" "$t" topic purge p -p 0 --before 40 --yes
same "offsets stay" 40 "$("$t" tail p -o raw -q | head -n 1)"
exits 3 "what was purged is out of range" "$t" tail p --from 10
holds "carries the range" "40 to 100" "$work/err"
exits 3 "purge beyond the end" "$t" topic purge p -p 0 --before 500 --yes
exits 0 "purge before a time" "$t" topic purge p --before 2000-01-01 --yes
same "nothing was that old" 60 "$("$t" tail p -o raw -q | wc -l)"
exits 0 "purge all" "$t" topic purge p --yes -o json
holds "purge json" '"records":60' "$work/out"
same "it is empty" 0 "$("$t" tail p -o raw -q | wc -l)"
exits 0 "offsets go on" "$t" pub p next
holds "after what was there" "p[0]@100" "$work/err"

exits 6 "a dry run of delete" "$t" topic delete p --dry-run
exits 2 "delete without a terminal needs --yes" "$t" topic delete p
exits 0 "delete" "$t" topic delete p --yes
same "its plan is told once" 1 "$(cat "$work/out" "$work/err" | grep -c 'topic p')"
exits 3 "it is gone" "$t" topic describe p
exits 3 "delete what is not there" "$t" topic delete p --yes
lacks "is not told to create it" "topic create" "$work/err"
exits 0 "create -q" "$t" topic create quiet -q -c retention_time=7d
empty "prints nothing" "$work/out"
exits 0 "delete -q" "$t" topic delete quiet --yes -q
empty "prints nothing" "$work/out"

# On a terminal the name is asked for.
if command -v script >/dev/null; then
  on_terminal() { printf '%s\n' "$1" | script -qec "$2" /dev/null >"$work/out" 2>&1; }
  on_terminal wrong "'$t' topic delete a"
  same "a wrong name deletes nothing" 1 $?
  holds "it says so" "nothing was done" "$work/out"
  exits 0 "the topic is still there" "$t" topic describe a
  on_terminal a "'$t' topic delete a"
  same "the right name deletes" 0 $?
  exits 3 "and it is gone" "$t" topic describe a
  seq 1 20 | "$t" pub x.y -q
  script -qec "timeout -s INT 4 '$t' tail x.y" /dev/null >"$work/out" 2>&1 </dev/null
  same "a terminal shows the last 10 and follows" 10 "$(grep -c 'x.y\[0\]@' "$work/out")"
  holds "in colour" $'\033[36m' "$work/out"
fi
stop_broker
same "SIGTERM stops the broker cleanly" 0 $?
finish
