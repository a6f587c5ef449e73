#!/usr/bin/env bash
# Real input through the command line: real_input.sh BINARY DIR. Publishes both files one record a line, kills the broker with
# SIGKILL, restarts, tails: identical bytes. Then copies each topic by `tail -o jsonl | pub -f jsonl` and compares again, keys
# and headers included. Then three members of a group share one of them, and each client address gets an event stream.
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

start_broker() {  # [HOST:PORT]
  : >"$work/ready"
  "$binary" server --data "$work/data" --listen "${1:-127.0.0.1:0}" --http-listen 127.0.0.1:0 >"$work/ready" 2>>"$work/broker.log" &
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
# Three members of a group share the lines, keyed by client address over 12 partitions; one leaves, one is killed, and so is the broker. At least once:
# every line is handled, and those of one address in their order (what comes again begins again at a stored offset).
"$binary" topic create shared --partitions 12 >/dev/null
lines=$(awk 'END { print NR }' "$dir/apache_access.log")
half=$((lines / 2))
awk '{ print NR " " $0 }' "$dir/apache_access.log" >"$work/numbered"
publish() { awk '{ k = $2; print k "\t" $0 }' | "$binary" pub shared --key-sep '\t' -q >/dev/null 2>&1; }
members=()
for i in 1 2 3; do
  "$binary" tail shared -g workers --commit -F -o raw >"$work/member.$i" 2>/dev/null &
  members[i]=$!
done
lag() { "$binary" group lag workers -o jsonl 2>/dev/null | grep -o '"lag_records":[0-9]*' | cut -d: -f2 | awk '{ n += $1 } END { print NR ? n : -1 }'; }
until_read() { for _ in $(seq 600); do [ "$(lag)" = 0 ] && return 0; sleep 0.1; done; echo "the group does not get to the end"; return 1; }
members_now() { "$binary" group members workers -o jsonl 2>/dev/null | grep -c '"reads":\[{' || true; }
for _ in $(seq 200); do [ "$(members_now)" = 3 ] && break; sleep 0.05; done
[ "$(members_now)" = 3 ] || { echo "three members do not share the partitions"; status=1; }
head -n "$half" "$work/numbered" | publish
kill -INT "${members[1]}"; wait "${members[1]}" 2>/dev/null || true   # leaves
restart_by_kill_on_its_port() {
  local at=$TAILRACE_SERVERS
  kill -9 "$broker"; wait "$broker" 2>/dev/null || true
  start_broker "$at"
}
restart_by_kill_on_its_port
kill -9 "${members[2]}"; wait "${members[2]}" 2>/dev/null || true     # its session must end first
tail -n +$((half + 1)) "$work/numbered" | publish
until_read || status=1
kill -INT "${members[3]}"; wait "${members[3]}" 2>/dev/null || true
handled=$(cut -d' ' -f1 "$work"/member.[123] | sort -nu | awk 'END { print NR }')
again=$(($(cat "$work"/member.[123] | awk 'END { print NR }') - handled))
# Within what one member printed the lines of an address only go back to where some were handled before; the first time of each line is in order.
disorder=$(for i in 1 2 3; do awk -v m=$i '{ if (!($1 in seen)) { seen[$1] = 1; if ($1 < last[$2]) bad++; last[$2] = $1 } } END { print bad + 0 }' "$work/member.$i"; done | awk '{ n += $1 } END { print n }')
echo "group of three, one left, one killed, the broker killed: $handled of $lines lines handled, $again of them again, $disorder out of order"
[ "$handled" = "$lines" ] && [ "$disorder" = 0 ] || { echo "lines were lost, or came out of order"; status=1; }
cut -d' ' -f2- <(sort -n -u -k1,1 "$work"/member.[123]) | cmp -s - "$dir/apache_access.log" && echo "what they handled is the file: identical" || { echo "what they handled is not the file"; status=1; }
# One stream for each client address, each line an event; the broker is killed and its index deleted; every stream is the file's lines of that address.
"$binary" topic create clients -c streams=true --partitions 8 >/dev/null
mkdir -p "$work/lines"
awk -v lines="$work/lines" '{ name = $1; gsub(/[^A-Za-z0-9.:-]/, "_", name); file = lines "/" name; if (!(name in seen)) { seen[name] = 1; printf "" > file; close(file) } print >> file; close(file) }' "$dir/apache_access.log"
for lines in "$work"/lines/*; do
  "$binary" stream append "clients/$(basename "$lines")" --expect none --type line -q <"$lines" || { echo "an append is refused"; status=1; break; }
done
kill -9 "$broker"; wait "$broker" 2>/dev/null || true
rm -rf "$work"/data/shard-*/streams
start_broker
streams=$("$binary" stream ls clients -o raw | awk 'END { print NR }')
largest=0 different=0
while read -r name; do
  "$binary" stream read "clients/$name" -o raw -q >"$work/stream"
  cmp -s "$work/stream" "$work/lines/$name" || different=$((different + 1))
  n=$(awk 'END { print NR }' "$work/stream"); [ "$n" -gt "$largest" ] && largest=$n
done < <("$binary" stream ls clients -o raw)
again=$("$binary" stream read "clients/$(basename "$lines")" -o jsonl -q | "$binary" stream append "clients/$(basename "$lines")" --expect none -f jsonl -o json | grep -c '"duplicate":true' || true)
echo "one stream a client: $streams streams, the largest of $largest events, $different differ from the file's lines; the last append again: $([ "$again" = 1 ] && echo duplicate || echo NEW)"
[ "$streams" = "$(ls "$work/lines" | awk 'END { print NR }')" ] && [ "$different" = 0 ] && [ "$again" = 1 ] || { echo "streams are not what was appended"; status=1; }
kill -TERM "$broker"; wait "$broker" || { echo "the broker did not stop cleanly"; status=1; }
broker=
exit $status
