#!/usr/bin/env bash
# Everything that -o json and -o jsonl print, of every command that has them, obeys one contract: json.sh TAILRACE JSON_CONTRACT
contract=$2
set -- "$1"
source "$(dirname "$0")/lib.sh" "$@"
t=$tailrace
start_broker
seen=
# obeys json|jsonl EXIT COMMAND...
obeys() {
  local format=$1 wanted=$2
  shift 2
  exits "$wanted" "$* -o $format" "$t" "$@" -o "$format"
  if "$contract" $([ "$format" = jsonl ] && echo lines) <"$work/out" 2>"$work/broken"; then pass "  obeys the contract"; else fail "  obeys the contract"; head -n 5 "$work/broken"; fi
  seen="$seen|$format $*"
}
both() { obeys json "$@"; obeys jsonl "$@"; }

obeys json 0 version
both 0 explain
both 0 explain E5303
obeys json 0 config show
obeys json 0 config check
obeys json 0 config explain
obeys json 0 config explain wal
obeys json 0 config explain retention_time
printf '[wal]\nfile_byts = "64MiB"\n' >bad.toml
obeys json 2 config check bad.toml
both 6 topic create a -c retention_time=7d -c retention_bytes=1GiB --dry-run
obeys json 0 topic create a -c retention_time=7d -c retention_bytes=1GiB
obeys jsonl 0 topic create b
printf 'k:1\n' >keyed
obeys jsonl 0 pub a --key-sep : <keyed
obeys jsonl 0 tail a
both 0 topic ls
both 0 topic describe a
both 6 topic alter a --partitions 3 --unset retention_bytes -c retention_time=1d --dry-run
obeys json 0 topic alter a -c retention_time=unlimited
both 6 topic purge a --dry-run
both 0 topic skip-damage a -p 0
"$t" tail a -g readers --commit -F >/dev/null 2>&1 & member=$!
for _ in $(seq 200); do [ -n "$("$t" group members readers -o jsonl 2>/dev/null)" ] && break; sleep 0.05; done
both 0 group ls
both 0 group describe readers
both 0 group members readers
both 0 group lag
both 0 group lag readers
both 0 group explain readers
kill -INT $member; wait $member
both 6 group reset readers --to start
obeys jsonl 0 group reset readers --to end --apply
both 6 group delete readers --dry-run
exits 0 "a topic of streams" "$t" topic create s -c streams=true
obeys json 0 stream append s/x --expect none --type made one
obeys jsonl 0 stream append s/x --expect 0 --type made two
obeys jsonl 0 stream read s/x
both 0 stream ls s
both 0 stream describe s/x
both 6 stream truncate s/x --before 1 --dry-run
both 6 stream delete s/x --dry-run
both 6 topic delete b --dry-run
obeys json 0 topic delete b --yes
obeys json 0 bench pub --rate 500 --duration 200ms --warmup 0
obeys json 0 bench e2e --rate 500 --duration 200ms --warmup 0
obeys json 0 bench sub --records 100 --size 20
stop_broker
obeys jsonl 0 log verify data
obeys jsonl 0 log dump data/shard-0/wal/00.log
obeys jsonl 0 log dump data/shard-0/checkpoint-0

# None is forgotten: what the help lists was tried.
while read -r command; do
  # shellcheck disable=SC2086
  for format in $("$t" $command --help | sed -nE 's/^ +-o,--output ([a-z|]+).*/\1/p' | tr '|' ' '); do
    case $format in json | jsonl) case "$seen|" in *"|$format $command"*) pass "$command -o $format was tried" ;; *) fail "$command -o $format was not tried" ;; esac ;; esac
  done
done < <("$t" gen completion bash | sed -n "s/^    'tailrace *\([^']*\)') commands='';.*/\1/p")
finish
