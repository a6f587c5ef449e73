#!/usr/bin/env bash
# Event streams from the command line: stream append|read|ls|describe|truncate|delete, conflicts, copies, a kill, an index that is gone.
source "$(dirname "$0")/lib.sh" "$@"
start_broker
t=$tailrace

exits 0 "a topic of streams" "$t" topic create orders -c streams=true --partitions 4
exits 0 "the first event" "$t" stream append orders/cart-7 --expect none --type created --id c1 '{"by":"alice"}'
holds "says where it is" "version 0" "$work/out"
exits 0 "the same again is answered as before" "$t" stream append orders/cart-7 --expect none --type created --id c1 '{"by":"alice"}'
holds "says so" "stored before" "$work/out"
exits 6 "somebody else was first" "$t" stream append orders/cart-7 --expect none --type created --id other '{}'
holds "says where it is" "is at version 0" "$work/err"
holds "and how long ago" " ago" "$work/err"
holds "and what to do" "tailrace stream read orders/cart-7" "$work/err"
exits 0 "events as lines" bash -c 'seq 1 5 | "$0" stream append orders/cart-7 --expect 0 --type added' "$t"
exits 0 "read" "$t" stream read orders/cart-7 -o raw
same "all of it, in order" "$(printf '{"by":"alice"}\n1\n2\n3\n4\n5')" "$(cat "$work/out")"
exits 0 "backwards" "$t" stream read orders/cart-7 --backwards -n 2 -o raw
same "the newest first" "$(printf '5\n4')" "$(cat "$work/out")"
exits 0 "from a version" "$t" stream read orders/cart-7 --from 4 -o raw
same "only from there" "$(printf '4\n5')" "$(cat "$work/out")"

"$t" topic create copies -c streams=true >/dev/null
exits 0 "a copy" bash -o pipefail -c '"$0" stream read orders/cart-7 -o jsonl | "$0" stream append copies/cart-7 --expect none -f jsonl' "$t"
essence() { "$t" stream read "$1" -o jsonl -q | sed -E 's/"(topic|offset)":("[^"]*"|[0-9]+),//g'; }
same "is the same but for its place" "$(essence orders/cart-7)" "$(essence copies/cart-7)"
exits 0 "2,500 events" bash -c 'seq 1 2500 | "$0" stream append orders/long --expect none --type n -q' "$t"
same "are read as they were written" "$(seq 1 2500 | sha256sum)" "$("$t" stream read orders/long -o raw -q | sha256sum)"
exits 7 "the second thousand has a bad line" bash -c '(for i in $(seq 1 1000); do echo "{\"type\":\"n\",\"data\":\"$i\"}"; done; echo nope) | "$0" stream append orders/partly --expect none -f jsonl' "$t"
holds "says how many are stored" "1,000 events before it are stored" "$work/err"
same "and they are" 1000 "$("$t" stream read orders/partly -o raw -q | wc -l | tr -d ' ')"
for i in 1 2 3; do "$t" stream append "orders/cart-9$i" --expect none --type made x -q; done
exits 0 "ls with a prefix" "$t" stream ls orders cart-9 -o raw
same "in order" "$(printf 'cart-91\ncart-92\ncart-93')" "$(cat "$work/out")"

exits 3 "a stream that is not there" "$t" stream describe orders/none
exits 2 "no slash" "$t" stream read orders
exits 2 "an expectation that is none" "$t" stream append orders/x --expect soon --type t y
exits 2 "no type" "$t" stream append orders/x --expect none y
exits 1 "a line that is no JSON" bash -c 'echo nope | "$0" stream append orders/x --expect none -f jsonl' "$t"
exits 3 "and nothing was stored" "$t" stream describe orders/x
"$t" topic create plain >/dev/null
"$t" stream append plain/x --expect none --type t y 2>"$work/err"; same "a topic without streams refuses" yes "$([ $? -ne 0 ] && echo yes)"

kill -9 "$broker"; wait "$broker" 2>/dev/null
rm -rf "$work"/data/shard-*/streams
start_broker
same "after a kill, and with its index gone, everything is there" "$(seq 1 2500 | sha256sum)" "$("$t" stream read orders/long -o raw -q | sha256sum)"
exits 6 "and versions are known" "$t" stream append orders/cart-7 --expect 4 --type added 6
exits 6 "truncate, dry" "$t" stream truncate orders/cart-7 --before 5 --dry-run
exits 0 "truncate" "$t" stream truncate orders/cart-7 --before 5 --yes
same "hides what is below" 5 "$("$t" stream read orders/cart-7 -o raw -q)"
exits 0 "delete" "$t" stream delete orders/cart-91 --yes
exits 3 "nothing is left" "$t" stream read orders/cart-91 --fail-empty
exits 6 "versions go on" "$t" stream append orders/cart-91 --expect none --type made x
exits 0 "at the next" "$t" stream append orders/cart-91 --expect 0 --type made x
exits 0 "a stop" stop_broker
exits 0 "the log is whole" "$t" log verify data
finish
