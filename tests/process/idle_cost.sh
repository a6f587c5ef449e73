#!/usr/bin/env bash
# B13: what idle partitions and connections cost. idle_cost.sh BINARY FLOOD [PARTITIONS [CONNECTIONS]]: a broker empty, with that many
# partitions (default 10,000) just created, after a restart, with one record in each, and with that many greeted connections (default
# 10,000, less where descriptors do not allow it). Prints resident memory, descriptors, CPU, and the size and time of /metrics. FLOOD is
# the program tests/flood, which holds the connections. A missed target is named; with BOUND=memory a missed one of memory or
# descriptors is a failure (1), with BOUND=all any. IDLE_SECONDS: how long each state is watched (10).
set -euo pipefail
binary=$(readlink -f "$1")
flood=$(readlink -f "$2")
count=${3:-10000}
connections=${4:-10000}
work=$(mktemp -d "${TMPDIR:-/tmp}/tailrace-idle.XXXXXX")
broker='' holder=''
cleanup() {
  for pid in $broker $holder; do kill -9 "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
ulimit -n "$(ulimit -Hn)"
most=$(($(ulimit -n) - 200))
[ "$connections" -le $most ] || { connections=$most; echo "descriptors allow $connections connections"; }
watched=${IDLE_SECONDS:-10}
bad=0
target() {  # kind name value most
  if [ "$3" -le "$4" ]; then return; fi
  echo "MISSED: $2 is $3, the target is $4"
  case ${BOUND:-none} in all | "$1") bad=1 ;; esac
}
ms() { echo $(($(date +%s%N) / 1000000)); }
start() {
  : >"$work/ready"
  "$binary" server --data "$work/data" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --set shutdown.deadline=2m --set limits.connections=100000 \
    --set limits.connections_per_address=100000 >"$work/ready" 2>>"$work/broker.log" &
  broker=$!
  for _ in $(seq 3000); do if grep -q '^ready ' "$work/ready"; then break; fi; sleep 0.01; done
  native=$(sed -n 's/^ready .*native=\([^ ]*\).*/\1/p' "$work/ready") http=$(sed -n 's/^ready .*http=\([^ ]*\).*/\1/p' "$work/ready")
  [ -n "$native" ] || { echo "no start"; tail -n 5 "$work/broker.log"; exit 1; }
  export TAILRACE_SERVERS=$native
}
stop() { kill -TERM "$broker"; wait "$broker" || { echo "the broker stopped with exit $?"; tail -n 5 "$work/broker.log"; exit 1; }; broker=''; }
ticks() { awk '{ print $14 + $15 }' "/proc/$broker/stat"; }
sample() {  # name -> sets rss (KiB), fds, cpu (per mille of one core)
  sleep 2
  local a b t0 t1
  a=$(ticks); sleep "$watched"; b=$(ticks)
  rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$broker/status")
  fds=$(ls "/proc/$broker/fd" | wc -l)
  cpu=$(((b - a) * 1000 / (watched * $(getconf CLK_TCK))))
  t0=$(ms); curl -sf "http://$http/metrics" >"$work/metrics"; t1=$(ms)
  echo "$1: resident $rss KiB, $fds descriptors, CPU $((cpu / 10)).$((cpu % 10)) % of one core, /metrics $(wc -c <"$work/metrics") bytes in $((t1 - t0)) ms"
}
start; sample "empty"; rss0=$rss fds0=$fds
target memory "resident KiB when empty" "$rss0" 40960
t0=$(ms); left=$count n=0
while [ "$left" -gt 0 ]; do
  step=$((left > 1000 ? 1000 : left))
  "$binary" topic create "idle-$n" --partitions $step >/dev/null
  left=$((left - step)) n=$((n + 1))
done
t1=$(ms)
echo "$count partitions created in $((t1 - t0)) ms ($(((t1 - t0) * 1000 / count)) us each)"
sample "$count partitions, just created"
target memory "bytes a partition, just created" $(((rss - rss0) * 1024 / count)) 4096
target time "CPU of idle partitions, per mille" "$cpu" 9
t0=$(ms); stop; t1=$(ms)
echo "stopped in $((t1 - t0)) ms"
t0=$(ms); start; t1=$(ms)
echo "restarted in $((t1 - t0)) ms ($(((t1 - t0) * 1000 / count)) us a partition)"
target time "us a partition of a clean restart" $(((t1 - t0) * 1000 / count)) 1000
sample "$count partitions, after the restart"
target memory "bytes a partition, after a restart" $(((rss - rss0) * 1024 / count)) 4096
target memory "descriptors of idle partitions" $((fds - fds0)) 16
t0=$(ms); n=0 left=$count
while [ "$left" -gt 0 ]; do
  step=$((left > 1000 ? 1000 : left))
  # A key per line: the records spread over the partitions, and reading them all opens every partition.
  seq 1 $((step * 8)) | "$binary" pub "idle-$n" --key-regex '^(.*)$' >/dev/null 2>&1
  "$binary" topic describe "idle-$n" -o json >/dev/null
  left=$((left - step)) n=$((n + 1))
done
t1=$(ms)
echo "8 records a partition published, all partitions opened, in $((t1 - t0)) ms"
sleep $((watched * 3))
sample "$count partitions, each used once"
used=$(((rss - rss0) * 1024 / count))
echo "an opened partition: $used bytes"
stop
t0=$(ms); start; t1=$(ms)
echo "restarted in $((t1 - t0)) ms ($(((t1 - t0) * 1000 / count)) us a partition) with data in all"
target time "us a partition of a restart with data" $(((t1 - t0) * 1000 / count)) 1000
sample "$count partitions with data, after the restart"
rss1=$rss fds1=$fds
mkfifo "$work/hold"
"$flood" --connect "$native" --idle "$connections" <"$work/hold" >"$work/held" &
holder=$!
exec 8>"$work/hold"
for _ in $(seq 600); do if grep -q '^connected' "$work/held"; then break; fi; sleep 0.1; done
cat "$work/held"
sample "$connections idle connections"
echo "a connection: $(((rss - rss1) * 1024 / connections)) bytes, $((fds - fds1)) descriptors for $connections"
target memory "bytes a connection" $(((rss - rss1) * 1024 / connections)) 12288
exec 8>&-
wait "$holder"; holder=''
stop
exit $bad
