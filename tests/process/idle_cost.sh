#!/usr/bin/env bash
# B13: what idle partitions cost. idle_cost.sh BINARY [PARTITIONS]: resident memory, descriptors and CPU of a broker with that many
# idle partitions (default 10,000), against the same broker empty. Prints one line each and the differences.
set -euo pipefail
binary=$(readlink -f "$1")
count=${2:-10000}
work=$(mktemp -d "${TMPDIR:-/tmp}/tailrace-idle.XXXXXX")
broker=
cleanup() { if [ -n "$broker" ]; then kill -9 "$broker" 2>/dev/null || true; wait "$broker" 2>/dev/null || true; fi; rm -rf "$work"; }
trap cleanup EXIT
start() {
  : >"$work/ready"
  "$binary" server --data "$work/data" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 >"$work/ready" 2>>"$work/broker.log" &
  broker=$!
  for _ in $(seq 600); do if grep -q '^ready ' "$work/ready"; then return; fi; sleep 0.05; done
  echo "no start"; tail -n 5 "$work/broker.log"; exit 1
}
stop() { kill -TERM "$broker"; wait "$broker"; broker=; }
ticks() { awk '{ print $14 + $15 }' "/proc/$broker/stat"; }
sample() {  # name -> sets rss (KiB), fds, cpu (per mille of one core over 10 s)
  sleep 2
  local a b
  a=$(ticks); sleep 10; b=$(ticks)
  rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$broker/status")
  fds=$(ls "/proc/$broker/fd" | wc -l)
  cpu=$(((b - a) * 1000 / (10 * $(getconf CLK_TCK))))
  echo "$1: resident $rss KiB, $fds descriptors, CPU $((cpu / 10)).$((cpu % 10)) % of one core"
}
start; sample "empty"; rss0=$rss fds0=$fds
TAILRACE_SERVERS=$(sed -n 's/^ready .*native=\([^ ]*\).*/\1/p' "$work/ready"); export TAILRACE_SERVERS
left=$count n=0
while [ "$left" -gt 0 ]; do
  step=$((left > 1000 ? 1000 : left))
  "$binary" topic create "idle-$n" --partitions $step >/dev/null
  left=$((left - step)) n=$((n + 1))
done
sample "$count partitions, just created"
stop
t0=$(date +%s%3N); start; t1=$(date +%s%3N)
sample "$count partitions, after a restart (ready in $((t1 - t0)) ms)"
echo "growth: $(((rss - rss0))) KiB resident ($(((rss - rss0) * 1024 / count)) bytes a partition), $((fds - fds0)) descriptors"
stop
