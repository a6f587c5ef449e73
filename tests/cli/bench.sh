#!/usr/bin/env bash
# bench at smoke size: it measures, states its conditions, and leaves no topic behind.
source "$(dirname "$0")/lib.sh" "$@"
start_broker
t=$tailrace
exits 0 "bench pub" "$t" bench pub --rate 500 --duration 1s --warmup 200ms --size 200 -o json
holds "states the durability" '"durability":"quorum"' "$work/out"
holds "states the kernel" '"kernel":"Linux' "$work/out"
holds "is open loop" '"open_loop":true' "$work/out"
same "as many as were due" yes "$(sed -n 's/.*"records":\([0-9]*\),"failed":0.*/\1/p' "$work/out" | awk '{ print ($1 >= 490 && $1 <= 510) ? "yes" : $1 }')"
exits 0 "bench e2e, a sweep with a picture" "$t" bench e2e --rate 200,400 --duration 1s --warmup 200ms --svg latency.svg
holds "prints percentiles" "p99.99" "$work/out"
holds "the picture is SVG" "<svg" latency.svg
holds "and ends" "</svg>" latency.svg
exits 0 "bench pub --max" "$t" bench pub --max --records 5000 --size 100
exits 0 "bench sub" "$t" bench sub --records 5000 --size 100 -o json
holds "bench sub counts" '"records":5000' "$work/out"
"$t" topic create small -q; seq 100 999 | "$t" pub small -q
exits 0 "bench sub of a topic" "$t" bench sub --topic small --records 900 -o json
holds "states the size that it read" '"record_bytes":3,' "$work/out"
"$t" topic delete small --yes -q
exits 1 "a picture that cannot be written is told before" "$t" bench pub --rate 10 --svg /nowhere/x.svg
same "no topic is left" "" "$("$t" topic ls -o raw -q)"
"$t" bench pub --rate 0.01 --duration 1h 2>/dev/null &
bench=$!
sleep 1
kill -TERM $bench
eventually "at a low rate it stops when told" 10 bash -c "! kill -0 $bench"
wait $bench
same "as interrupted" 130 $?
same "and leaves no topic" "" "$("$t" topic ls -o raw -q)"
exits 2 "a load must be given" "$t" bench pub
finish
