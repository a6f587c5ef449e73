#!/usr/bin/env bash
# The main job, end to end: demo.sh BINARY [FILE]. Publishes FILE line by line, tails it, kills the broker with SIGKILL in
# the middle of more publishing, starts it again, and compares byte for byte.
set -euo pipefail
binary=$(readlink -f "$1")
file=${2:-}
[ -z "$file" ] || { [ -f "$file" ] && [ -r "$file" ]; } || { echo "error: cannot read $file" >&2; exit 2; }
[ -z "$file" ] || file=$(readlink -f "$file")

work=$(mktemp -d "${TMPDIR:-/tmp}/tailrace-demo.XXXXXX")
broker=
cleanup() {
  if [ -n "$broker" ]; then kill -9 "$broker" 2>/dev/null || true; wait "$broker" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT
say() { printf '%s\n' "$*"; }
now_ms() { date +%s%3N; }

start_broker() {
  : >"$work/ready"
  "$binary" server --data "$work/data" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 >"$work/ready" 2>>"$work/broker.log" &
  broker=$!
  for _ in $(seq 200); do
    if grep -q '^ready ' "$work/ready"; then break; fi
    kill -0 "$broker" 2>/dev/null || { say "the broker did not start:"; tail -n 20 "$work/broker.log"; exit 1; }
    sleep 0.05
  done
  grep -q '^ready ' "$work/ready" || { say "the broker was not ready within 10 s"; exit 1; }
  TAILRACE_SERVERS=$(sed -n 's/^ready .*native=\([^ ]*\).*/\1/p' "$work/ready")
  export TAILRACE_SERVERS
}

generated=no
if [ -z "$file" ]; then
  generated=yes
  file=$work/orders.jsonl
  "$binary" gen orders --count 200000 --seed 1 >"$file"
  say "input      200,000 generated order events (deterministic, seed 1)"
fi
lines=$(awk 'END { print NR }' "$file")
bytes=$(stat -L -c %s "$file")
[ "$generated" = yes ] || say "input      $file: $lines lines, $bytes bytes"
# one record a line: the last line may lack its newline, tail prints one after every record
awk '{ print }' "$file" >"$work/expected"

t0=$(now_ms); start_broker; t1=$(now_ms)
say "broker     started in $((t1 - t0)) ms on $TAILRACE_SERVERS, data in a temporary directory"
"$binary" topic create demo --partitions 1 >/dev/null
t0=$(now_ms)
"$binary" pub demo --file "$file" >"$work/pub.out" 2>"$work/pub.err"
t1=$(now_ms)
ms=$((t1 - t0)); [ $ms -gt 0 ] || ms=1
say "published  $lines records, $bytes bytes in $ms ms: $((lines * 1000 / ms)) records/s, $((bytes / ms / 1000)) MB/s, each acknowledged after it was on the disk"

t0=$(now_ms)
"$binary" tail demo -q --from start --until end -p 0 -o raw >"$work/before"
t1=$(now_ms)
cmp "$work/expected" "$work/before" || { say "DIFFERENT before the kill"; exit 1; }
say "tailed     all of it back in $((t1 - t0)) ms: identical ($(sha256sum <"$work/before" | cut -c1-16))"

# Kill while a second publish is under way: what was acknowledged of it must be there too.
: >"$work/receipts"  # there at once: the publisher makes it only when it runs
"$binary" pub demo --file "$file" -o jsonl >"$work/receipts" 2>/dev/null &
publisher=$!
for _ in $(seq 100); do
  if [ "$(wc -l <"$work/receipts")" -gt 0 ]; then break; fi
  sleep 0.02
done
kill -9 "$broker"; wait "$broker" 2>/dev/null || true
broker=
say "killed     the broker with SIGKILL while more was being published"
kill -9 "$publisher" 2>/dev/null || true; wait "$publisher" 2>/dev/null || true
acked=$(awk '/"offset"/ { n++ } END { print n + 0 }' "$work/receipts")

t0=$(now_ms); start_broker; t1=$(now_ms)
say "restarted  in $((t1 - t0)) ms"
"$binary" tail demo -q --from start --until end -p 0 -o raw >"$work/after"
total=$(awk 'END { print NR }' "$work/after")
head -n "$lines" "$work/after" | cmp - "$work/expected" || { say "DIFFERENT after the kill"; exit 1; }
extra=$((total - lines))
[ $extra -ge "$acked" ] || { say "LOST: $acked records of the second publish were acknowledged, only $extra are there"; exit 1; }
tail -n +$((lines + 1)) "$work/after" | cmp - <(head -n $extra "$work/expected") || { say "DIFFERENT in the second publish"; exit 1; }
say "compared   $lines records byte for byte after the kill: identical; of the second publish $acked were acknowledged, $extra are there, in order"
kill -TERM "$broker"; wait "$broker" || { say "the broker did not stop cleanly"; exit 1; }
broker=
say "stopped    cleanly"
cat <<TXT

Go on by hand:
  ${binary#"$PWD"/} dev                                  # a broker on ./.tailrace
  echo hello | ${binary#"$PWD"/} pub greetings -k me      # in another terminal
  ${binary#"$PWD"/} tail greetings --from start -F
TXT
