#!/usr/bin/env bash
# A full disk refuses records and nothing else: disk_full.sh BINARY. A broker on a 96 MiB loop mount is filled until it answers
# storage_full (exit 5); reads, topic commands and deletes still work; after space is freed it takes records again without a
# restart, and everything acknowledged is there. Needs root and loop devices; says so and exits 77 (skipped) without them.
set -euo pipefail
binary=$(readlink -f "$1")
[ "$(id -u)" = 0 ] || { echo "skipped: needs root for a loop mount"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/tailrace-full.XXXXXX")
broker=
cleanup() {
  if [ -n "$broker" ]; then kill -9 "$broker" 2>/dev/null || true; wait "$broker" 2>/dev/null || true; fi
  if mountpoint -q "$work/mnt"; then umount "$work/mnt" || true; fi
  rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "FAILED: $*"; tail -n 15 "$work/broker.log"; exit 1; }

truncate -s 96M "$work/disk"
mkdir "$work/mnt"
mkfs.ext4 -q -F "$work/disk"
mount -o loop "$work/disk" "$work/mnt" 2>/dev/null || { echo "skipped: no loop mounts here"; exit 77; }
: >"$work/ready"
"$binary" server --data "$work/mnt/data" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
  --set wal.file_bytes=4MiB --set wal.files=4 >"$work/ready" 2>"$work/broker.log" &
broker=$!
for _ in $(seq 200); do if grep -q '^ready ' "$work/ready"; then break; fi; kill -0 $broker 2>/dev/null || fail "no start"; sleep 0.05; done
TAILRACE_SERVERS=$(sed -n 's/^ready .*native=\([^ ]*\).*/\1/p' "$work/ready"); export TAILRACE_SERVERS
"$binary" topic create full -c segment_bytes_max=4MiB >/dev/null
"$binary" topic create other >/dev/null
echo before | "$binary" pub other >/dev/null 2>&1 || fail "publish on an empty disk"

# 1. fill it: the publisher must end with the full disk's exit code within a bounded time
"$binary" gen orders --count 2000000 --seed 7 >"$work/input" 2>/dev/null
set +e
timeout 120 "$binary" pub full --file "$work/input" -o jsonl --timeout 5s >"$work/receipts" 2>"$work/pub.err"
status=$?
set -e
acked=$(grep -c '"offset"' "$work/receipts" || true)
[ $status -eq 5 ] || [ $status -eq 7 ] || [ $status -eq 8 ] || fail "publishing into a full disk ended with exit $status"
grep -q 'E5301\|storage_full\|disk is full' "$work/pub.err" || fail "the publisher was not told that the disk is full: $(cat "$work/pub.err")"
echo "full after $acked acknowledged records; the publisher was told (exit $status)"

# 2. everything else works
kill -0 $broker || fail "the broker died"
[ "$("$binary" tail other --from start --until end -o raw)" = before ] || fail "reading on a full disk"
"$binary" topic describe full >/dev/null || fail "describe on a full disk"
"$binary" tail full --from start --until end -p 0 -o raw | head -n "$acked" | cmp - <(head -n "$acked" "$work/input") || fail "acknowledged records differ"
echo "reads, describe: work; all acknowledged records are there"

# 3. freeing space by deleting records (our own means), and going on without a restart
"$binary" topic purge full --yes >/dev/null || fail "purge on a full disk"
for i in $(seq 60); do
  if echo after | timeout 10 "$binary" pub other --timeout 2s >/dev/null 2>&1; then break; fi
  [ "$i" -lt 60 ] || fail "did not take records again after space was freed"
  sleep 0.5
done
"$binary" tail other --from start --until end -p 0 -o raw | cmp - <(printf 'before\nafter\n') || fail "records after the full disk"
echo "after a purge it takes records again, same process"
kill -TERM $broker; wait $broker || fail "no clean stop"
broker=
