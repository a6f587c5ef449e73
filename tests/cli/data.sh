#!/usr/bin/env bash
# pub and tail against a broker: every input and output format, receipts, positions, pipes, signals, exit codes.
# data.sh TAILRACE [FAKE_BROKER]
source "$(dirname "$0")/lib.sh" "$@"
start_broker
t=$tailrace

# --- one record, the tour's way
exits 0 "create" "$t" topic create orders --partitions 1
exits 6 "create again is a conflict" "$t" topic create orders
holds "the conflict has its code" "error E2032:" "$work/err"
exits 0 "create --if-not-exists" "$t" topic create orders --if-not-exists
echo '{"id":1}' | exits 0 "pub one line" "$t" pub orders -k alice -H source=cli
holds "its place is told" "orders[0]@0" "$work/err"
empty "pub prints no data" "$work/out"
exits 0 "tail it" "$t" tail orders
same "jsonl is the contract" '{"schema":"tailrace.record.v1","topic":"orders","partition":0,"offset":0,"timestamp":"T","key":"alice","value":"{\"id\":1}","headers":[{"key":"source","value":"cli"}]}' \
  "$(sed -E 's/"timestamp":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z"/"timestamp":"T"/' "$work/out")"
holds "stopping at the end is told" "-F follows" "$work/err"
exits 0 "raw" "$t" tail orders -o raw -q
same "raw is the value" '{"id":1}' "$(cat "$work/out")"
empty "-q is quiet" "$work/err"
exits 0 "table" "$t" tail orders -o table
holds "table shows the place" "orders[0]@0" "$work/out"
exits 3 "a topic that is not there" "$t" tail order
holds "close names" "Close names: orders" "$work/err"
holds "and how to create it" "tailrace topic create order" "$work/err"
exits 3 "pub to a topic that is not there" "$t" pub order x
exits 0 "pub --create" "$t" pub made x --create
exits 0 "arguments are records" "$t" pub made '[1,2,3]' '' 'two words'
exits 0 "read them" "$t" tail made -o raw -q
same "arguments as they were" "$(printf 'x\n[1,2,3]\n\ntwo words')" "$(cat "$work/out")"
exits 0 "--count repeats" "$t" pub made a b --count 5
same "five" "$(printf 'a\nb\na\nb\na')" "$("$t" tail made --from 4 -o raw -q)"

# --- bytes: a million of them, empty lines, binary, no newline at the end
head -c 200000 /dev/urandom | tr -d '\n' | fold -b -w 997 >random.txt
printf '\n\nx\ry\r\nno newline' >>random.txt
exits 0 "create bytes" "$t" topic create bytes
exits 0 "pub --file" "$t" pub bytes --file random.txt
"$t" tail bytes -o raw -q >back.txt
awk '{ print }' random.txt >expected.txt
same_file "every byte comes back" expected.txt back.txt
exits 0 "raw input is one record" "$t" pub made -f raw --file random.txt
"$t" tail made --from -1 -o raw -q | head -c -1 | cmp -s - random.txt && pass "and comes back whole" || fail "and comes back whole"

# --- a faithful copy: null, empty, binary, repeats of headers, times
exits 0 "create copies" "$t" topic create copy
cat >lines.jsonl <<'JSON'
{"key":null,"value":null,"headers":[]}
{"key":"","value":"","headers":[{"key":"a","value":"1"},{"key":"a","value":null},{"key":"","value":""}]}
{"key":{"base64":"/wA="},"value":{"base64":"gICA"},"headers":[{"key":"b","value":{"base64":"/w=="}}],"timestamp":"2020-02-29T23:59:59.999Z"}
{"key":"ключ","value":"line\nbreak \u0000 \"quote\"","timestamp":"1969-12-31T23:59:59.999Z","ignored":{"a":[1]}}
JSON
exits 0 "create formats" "$t" topic create formats
exits 0 "pub -f jsonl" "$t" pub formats -f jsonl --file lines.jsonl
"$t" tail bytes -o jsonl -q >bytes.jsonl
"$t" tail formats -o jsonl -q >formats.jsonl
same "four records" 4 "$(wc -l <formats.jsonl)"
holds "null stays null" '"key":null,"value":null,"headers":[]' formats.jsonl
holds "headers keep order, repeats, null" '"headers":[{"key":"a","value":"1"},{"key":"a","value":null},{"key":"","value":""}]' formats.jsonl
holds "binary is base64" '"key":{"base64":"/wA="},"value":{"base64":"gICA"}' formats.jsonl
holds "time is kept" '"timestamp":"2020-02-29T23:59:59.999Z"' formats.jsonl
holds "time before 1970 is kept" '"timestamp":"1969-12-31T23:59:59.999Z"' formats.jsonl
essence() { sed -E 's/"topic":"[^"]*"/"topic":"T"/; s/"offset":[0-9]+/"offset":N/' "$1"; }
cat formats.jsonl bytes.jsonl | "$t" pub copy -f jsonl 2>/dev/null
"$t" tail copy -o jsonl -q >copy.jsonl
cat formats.jsonl bytes.jsonl >both.jsonl
essence both.jsonl >a; essence copy.jsonl >b
same_file "tail -o jsonl | pub -f jsonl is a faithful copy" a b
exits 1 "a bad line stops it" "$t" pub copy -f jsonl --file random.txt
holds "and is named" "line 1" "$work/err"
printf '{"value":"1"}\n{"value":"2"}\n{"key":"x"}\n{"value":"4"}\n' >bad.jsonl
exits 7 "a bad third line: partly done" "$t" pub copy -f jsonl --file bad.jsonl
holds "says how to go on" "--skip 2" "$work/err"
exits 0 "and --skip goes on" "$t" pub copy -f jsonl --file bad.jsonl --skip 3

# --- keys
exits 0 "create keyed" "$t" topic create keyed --partitions 4
printf 'k1:a\nk2:b\nk1:c:d\n' | exits 0 "pub --key-sep" "$t" pub keyed --key-sep : -q
same "key and value are cut at the first separator" '"k1" "c:d"' "$("$t" tail keyed --key k1 -q | tail -n 1 | sed -E 's/.*"key":("[^"]*"),"value":("[^"]*").*/\1 \2/')"
same "--key finds all of a key" 2 "$("$t" tail keyed --key k1 -q | wc -l)"
same "a key stays on one partition" 1 "$("$t" tail keyed --key k1 -q | grep -o '"partition":[0-9]*' | sort -u | wc -l)"
printf 'nokey\n' | exits 1 "a line without its key is an error" "$t" pub keyed --key-sep :
holds "and is named" "line 1" "$work/err"
printf '10.0.0.1 GET /\n' | exits 0 "pub --key-regex" "$t" pub keyed --key-regex '^[^ ]+' -q
same "the line stays whole" "10.0.0.1 GET /" "$("$t" tail keyed --key 10.0.0.1 -o raw -q)"
exits 0 "a tombstone" "$t" pub keyed -k k1 --tombstone -q
holds "has no value" '"value":null' <("$t" tail keyed --key k1 -q)
exits 0 "the empty key is a key" "$t" pub keyed empty -k '' -q
same "and is found" empty "$("$t" tail keyed --key '' -o raw -q)"

# --- partitions
for p in 0 1 2 3; do "$t" pub keyed "to $p" -p $p -q; done
same "-p publishes and reads one partition" "to 2" "$("$t" tail keyed -p 2 -o raw -q | tail -n 1)"
exits 3 "a partition that is not there" "$t" pub keyed x -p 9
exits 3 "reading one that is not there" "$t" tail keyed -p 9
printf 'k\tv\n' | exits 0 "--key-sep of a tab" "$t" pub keyed --key-sep '\t' -q
same "is a tab" v "$("$t" tail keyed --key k -o raw -q)"
printf 'abc\n' | exits 1 "an expression that does not match" "$t" pub keyed --key-regex '\d+'
holds "is bad input, not a bad flag" "error E1011:" "$work/err"
holds "and says whose dialect it is" "POSIX" "$work/err"
exits 2 "an offset needs its partition" "$t" tail keyed --from 0
"$t" topic create kept --partitions 4 -q >/dev/null
"$t" tail keyed -q | "$t" pub kept -f jsonl --keep-partition -q
same "--keep-partition" "$("$t" tail keyed -q | grep -o '"partition":[0-9]*' | sort | uniq -c)" "$("$t" tail kept -q | grep -o '"partition":[0-9]*' | sort | uniq -c)"

# --- where to read
exits 0 "create numbers" "$t" topic create numbers
seq 0 99 | "$t" pub numbers -q
same "from an offset" "$(seq 90 99)" "$("$t" tail numbers --from 90 -o raw -q)"
same "until an offset" "$(seq 5 9)" "$("$t" tail numbers --from 5 --until 10 -o raw -q)"
same "the last three" "$(seq 97 99)" "$("$t" tail numbers --from -3 -o raw -q)"
same "-n" "$(seq 0 4)" "$("$t" tail numbers -n 5 -o raw -q)"
same "from an age" 100 "$("$t" tail numbers --from -1h -o raw -q | wc -l)"
same "from a time to come" 0 "$("$t" tail numbers --from 2100-01-01 -o raw -q | wc -l)"
same "until a time gone by" 0 "$("$t" tail numbers --until 2000-01-01 -o raw -q | wc -l)"
exits 0 "until an offset to come" "$t" tail numbers -p 0 --until 99999
holds "stops at the end and says so" "stopped at the end" "$work/err"
exits 2 "other systems' words" "$t" tail numbers --from latest
holds "are answered with ours" "did you mean end?" "$work/err"
exits 0 "an empty read is no failure" "$t" tail numbers --from 2100-01-01
exits 3 "unless --fail-empty" "$t" tail numbers --from 2100-01-01 --fail-empty
exits 3 "an offset out of range" "$t" tail numbers --from 500
holds "carries the range" "0 to 100" "$work/err"
same "or follows the policy" "$(seq 0 99)" "$("$t" tail numbers --from 500 --out-of-range start -o raw -q)"
lacks "--no-value" '"value"' <("$t" tail numbers --no-value -q)
# -N over several partitions is global, by time
exits 0 "create spread" "$t" topic create spread --partitions 3
for i in $(seq 1 12); do printf '{"value":"%d","timestamp":"2026-01-01T00:00:%02dZ"}\n' "$i" "$i" | "$t" pub spread -f jsonl -p $((i % 3)) -q; done
same "-N is global and by time" "$(seq 9 12)" "$("$t" tail spread --from -4 -o raw -q)"

# --- receipts
seq 1 1000 | "$t" pub numbers -o jsonl -q >receipts
same "a receipt for each line" 1000 "$(wc -l <receipts)"
same "receipts name lines" "$(seq 1 1000)" "$(sed -E 's/.*"line":([0-9]+),.*/\1/' receipts | sort -n)"
same "receipts name offsets" "$(seq 100 1099)" "$(sed -E 's/.*"offset":([0-9]+),.*/\1/' receipts | sort -n)"
mkfifo slow
"$t" pub numbers -o jsonl -q <slow >live 2>/dev/null &
publisher=$!
exec 7>slow
echo one >&7
eventually "a receipt comes while the pipe is open" 5 grep -q '"line":1,' live
echo two >&7
eventually "and the next" 5 grep -q '"line":2,' live
exec 7>&-
wait $publisher
same "the end of the pipe ends it well" 0 $?

# --- following, Ctrl-C, closed pipes
end=$("$t" topic describe numbers -o json | sed -E 's/.*"high_watermark":([0-9]+).*/\1/')
"$t" tail numbers --from "$end" -F -o raw >followed 2>followed.err &
follower=$!
echo fresh | "$t" pub numbers -q
eventually "following shows new records" 5 grep -q fresh followed
kill -INT $follower
wait $follower
same "Ctrl-C exits 130" 130 $?
holds "with a summary" "1 record, 5 B" followed.err
mkfifo endless
"$t" pub numbers -o jsonl <endless >live2 2>interrupted.err &
publisher=$!
exec 7>endless
echo three >&7
eventually "its record is acknowledged" 10 grep -q '"line":1,' live2
kill -INT $publisher
wait $publisher
same "Ctrl-C of pub drains and exits 130" 130 $?
holds "and says what is acknowledged" "1 record acknowledged" interrupted.err
holds "and how to go on" "--skip 1" interrupted.err
exec 7>&-
yes many | "$t" pub numbers --rate 2000 2>twice.err &
publisher=$!
sleep 0.7
kill -INT $publisher; kill -INT $publisher
wait $publisher
same "two signals of one keystroke are one" 130 $?
holds "and the summary is there" "to go on: --skip" twice.err
exits 1 "a failure that published nothing" "$t" pub numbers "$(head -c 100 /dev/zero | tr '\0' x)" --key-sep :
lacks "has no summary of nothing" "--skip" "$work/err"
{ "$t" tail numbers 2>quiet.err; echo $? >status; } | head -n 1 >/dev/null
same "a reader that leaves is no error" 0 "$(cat status)"
empty "and nothing is said" quiet.err
timeout 10 "$t" tail numbers -F -o raw 2>/dev/null | head -n 1 >/dev/null
pass "head ends a followed topic"
started=$(date +%s%N)
"$t" pub numbers x --count 10 --rate 20 -q
ms=$((($(date +%s%N) - started) / 1000000))
same "--rate holds back" yes "$([ $ms -ge 440 ] && [ $ms -lt 10000 ] && echo yes || echo "$ms ms")"

# --- long work shows a bar on a terminal, after a second, and only there
if command -v script >/dev/null; then
  "$t" gen orders --count 20000 >long.txt
  script -qec "'$t' pub numbers --file long.txt --rate 10000" /dev/null >"$work/out" 2>&1 </dev/null
  holds "a bar on a terminal" "publishing [=" "$work/out"
  "$t" pub numbers --file long.txt --rate 15000 >"$work/out" 2>"$work/err"
  lacks "no bar without one" "publishing [" "$work/err"
  script -qec "'$t' pub numbers x" /dev/null >"$work/out" 2>&1 </dev/null
  lacks "no bar for short work" "publishing [" "$work/out"
fi

# --- a broker that is silent, and one that is gone
"$t" topic create silent -q >/dev/null
mkfifo held
"$t" pub silent --timeout 2s -o jsonl <held >receipts 2>held.err &
publisher=$!
exec 7>held
echo one >&7
eventually "acknowledged before the silence" 5 grep -q '"line":1,' receipts
silence
echo two >&7
wait $publisher
same "no answer: the outcome is unknown" 8 $?
holds "says which are safe" "1 record acknowledged" held.err
holds "and how to go on" "--skip 1" held.err
exec 7>&-
holds "and that a new run is a new producer" "store again" held.err
holds "in the words of the flags" "--timeout (2.0 s)" held.err
# A producer that is faster than a silent broker waits; it does not grow.
yes "$(head -c 500 /dev/zero | tr '\0' x)" | "$t" pub silent --timeout 20s -q 2>/dev/null &
publisher=$!
kill -CONT "$broker"
sleep 1
silence
resident() { awk '/VmRSS/ { print $2 }' "/proc/$publisher/status"; }
sleep 1.5
before=$(resident)
sleep 2
after=$(resident)
same "memory stands still" yes "$([ "${after:-0}" -gt 0 ] && [ $((after - before)) -lt 20000 ] && echo yes || echo "$before -> $after KiB")"
kill -INT $publisher
# A second one that comes before the first was delivered is the same signal still: on a busy machine it takes more than one.
for _ in $(seq 30); do sleep 0.3; kill -INT $publisher 2>/dev/null || break; done
wait $publisher
same "Ctrl-C twice leaves at once" 130 $?
kill -CONT "$broker"

# --- larger than one batch, each codec
"$t" gen orders --count 20000 --seed 3 >orders.txt
for codec in none lz4 zstd; do
  "$t" topic create "codec-$codec" -q >/dev/null
  exits 0 "pub --compression $codec" "$t" pub "codec-$codec" --file orders.txt --compression $codec
  "$t" tail "codec-$codec" -o raw -q >back.txt
  same_file "identical through $codec" orders.txt back.txt
done
finish
