#!/usr/bin/env bash
# examples.sh BUILD_DIR: the SDK's examples against a real broker process.
set -euo pipefail
build=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/tailrace-examples.XXXXXX")
broker=
finish() {
  [ -z "$broker" ] || { kill "$broker" 2>/dev/null || true; wait "$broker" 2>/dev/null || true; }
  rm -rf "$work"
}
trap finish EXIT
"$build/bin/tailrace" server --data "$work/data" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --set wal.file_bytes=8MiB >"$work/ready" 2>"$work/log" &
broker=$!
for _ in $(seq 300); do
  grep -q '^ready ' "$work/ready" && break
  kill -0 "$broker" 2>/dev/null || { cat "$work/log"; echo "FAILED: the broker did not start"; exit 1; }
  sleep 0.1
done
server=$(sed -n 's/^ready .*native=\([^ ]*\).*/\1/p' "$work/ready")
[ -n "$server" ] || { echo "FAILED: no ready line within 30 s"; exit 1; }
"$build/bin/tailrace" topic create orders --partitions 3 --servers "$server" >/dev/null

run() { "$build/examples/example_$1" "$server" orders "${@:2}"; }
run publish 90 | grep -qx 'stored 90 of 90 orders'
[ "$(run tail | wc -l)" -eq 90 ]
run replay 0 2 9 | grep -qx 'replayed 7 records, twice: the same'
if run idempotent_handler "$work/state" 37 >/dev/null; then echo "FAILED: it should have died"; exit 1; fi
for _ in 1 2; do
  run idempotent_handler "$work/state" | grep -qx 'records 90 cents 13005' || { echo "FAILED: the handler's sum is wrong: $(cat "$work/state")"; exit 1; }
done
{ run group_member workers 40; run group_member workers 50; } 2>/dev/null | sort -u >"$work/shared"
[ "$(wc -l <"$work/shared")" -eq 90 ] || { echo "FAILED: two members one after the other saw $(wc -l <"$work/shared") of 90 records"; exit 1; }
echo "ok: publish, tail, replay, idempotent handler, group member"
