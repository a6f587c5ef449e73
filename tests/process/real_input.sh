#!/usr/bin/env bash
# Real input through the command line: real_input.sh BINARY DIR. Publishes both files one record a line, kills the broker with
# SIGKILL, restarts, tails: identical bytes. Then copies each topic by `tail -o jsonl | pub -f jsonl` and compares again, keys
# and headers included.
set -euo pipefail
binary=$(readlink -f "$1")
dir=$2
files=(apache_access.log nginx_events.jsonl)
for f in "${files[@]}"; do
  [ -r "$dir/$f" ] || { echo "error: $dir/$f is missing" >&2; exit 1; }
done
dir=$(readlink -f "$dir")

work=$(mktemp -d "${TMPDIR:-/tmp}/tailrace-real.XXXXXX")
broker=
cleanup() {
  if [ -n "$broker" ]; then kill -9 "$broker" 2>/dev/null || true; wait "$broker" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

start_broker() {
  : >"$work/ready"
  "$binary" server --data "$work/data" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 >"$work/ready" 2>>"$work/broker.log" &
  broker=$!
  for _ in $(seq 200); do
    if grep -q '^ready ' "$work/ready"; then break; fi
    kill -0 "$broker" 2>/dev/null || { echo "the broker did not start:"; tail -n 20 "$work/broker.log"; exit 1; }
    sleep 0.05
  done
  TAILRACE_SERVERS=$(sed -n 's/^ready .*native=\([^ ]*\).*/\1/p' "$work/ready")
  export TAILRACE_SERVERS
}
restart_by_kill() {
  kill -9 "$broker"; wait "$broker" 2>/dev/null || true
  start_broker
}
sum() { sha256sum <"$1" | cut -d' ' -f1; }
# What makes a record, without its place: key, value, headers, timestamp.
essence() { sed -E 's/"(topic|schema)":"[^"]*",?//g; s/"(partition|offset)":[0-9]+,?//g' "$1"; }

start_broker
"$binary" topic create apache >/dev/null
"$binary" topic create nginx >/dev/null
# apache: the key is the client's address; a header says where the record comes from
"$binary" pub apache --file "$dir/apache_access.log" --key-regex '^[^ ]+' -H source=apache_access.log 2>/dev/null >/dev/null
"$binary" pub nginx --file "$dir/nginx_events.jsonl" -H source=nginx_events.jsonl 2>/dev/null >/dev/null
restart_by_kill
echo "published both files, killed the broker with SIGKILL, restarted"

status=0
for pair in apache:apache_access.log nginx:nginx_events.jsonl; do
  topic=${pair%%:*} f=${pair#*:}
  "$binary" tail "$topic" -q --from start --until end -p 0 -o raw >"$work/$topic.raw"
  records=$(awk 'END { print NR }' "$work/$topic.raw")
  if cmp -s "$dir/$f" "$work/$topic.raw"; then verdict=identical; else verdict=DIFFERENT; status=1; fi
  echo "$f: $records records, sha256 in $(sum "$dir/$f") out $(sum "$work/$topic.raw"): $verdict"

  "$binary" topic create "$topic-copy" >/dev/null
  "$binary" tail "$topic" -q --from start --until end -o jsonl | "$binary" pub "$topic-copy" -f jsonl 2>/dev/null >/dev/null
  restart_by_kill
  "$binary" tail "$topic" -q --from start --until end -o jsonl >"$work/$topic.jsonl"
  "$binary" tail "$topic-copy" -q --from start --until end -o jsonl >"$work/$topic-copy.jsonl"
  essence "$work/$topic.jsonl" >"$work/a"; essence "$work/$topic-copy.jsonl" >"$work/b"
  if [ -s "$work/a" ] && cmp -s "$work/a" "$work/b"; then verdict=identical; else verdict=DIFFERENT; status=1; fi
  echo "$topic -> $topic-copy by tail | pub: $(awk 'END { print NR }' "$work/b") records, key, value, headers, timestamp: $verdict ($(sum "$work/b"))"
done
keyed=$(grep -c '"key":"' "$work/apache-copy.jsonl" || true)
headed=$(grep -c '"headers":\[{"key":"source"' "$work/apache-copy.jsonl" || true)
echo "apache-copy: $keyed records with a key, $headed with the header"
[ "$keyed" = "$(awk 'END { print NR }' "$dir/apache_access.log")" ] && [ "$headed" = "$keyed" ] || { echo "keys or headers were lost"; status=1; }
kill -TERM "$broker"; wait "$broker" || { echo "the broker did not stop cleanly"; status=1; }
broker=
exit $status
