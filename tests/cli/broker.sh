#!/usr/bin/env bash
# server, dev and config: flags, ready line, start errors that name their fix, restart, data still there.
source "$(dirname "$0")/lib.sh" "$@"
t=$tailrace

exits 0 "config check of the defaults" "$t" config check
holds "has a digest" "digest" "$work/out"
printf '[wal]\nfile_byts = "64MiB"\n[log]\nlevel = 3\n' >bad.toml
exits 2 "config check finds problems" "$t" config check bad.toml
holds "with place and suggestion" 'bad.toml:2:1' "$work/err"
holds "suggests" 'file_bytes' "$work/err"
same "all of them at once" 2 "$(grep -c '^error E1007' "$work/err")"
exits 2 "server refuses it too" "$t" server -c bad.toml
exits 2 "server --check" "$t" server -c bad.toml --check
exits 0 "server --check of the defaults" "$t" server --check
printf '[log]\nlevel = "warn"\n' >good.toml
TAILRACE_WAL__FILES=3 "$t" config show -c good.toml --set http.threads=1 --origin >show.txt
holds "origin: file" "good.toml:2" show.txt
holds "origin: environment" "TAILRACE_WAL__FILES" show.txt
holds "origin: flag" "--set" show.txt
"$t" config show -c good.toml >shown.toml
exits 0 "what show prints is a configuration" "$t" config check shown.toml
exits 0 "config explain KEY" "$t" config explain wal.file_bytes
holds "explains" "64MiB" "$work/out"
exits 0 "config explain topic" "$t" config explain topic
holds "topic keys" "retention_time" "$work/out"
exits 0 "config explain of a topic's key" "$t" config explain retention_time
holds "says where it is set" "topic create NAME -c" "$work/out"
exits 3 "config explain of nothing" "$t" config explain wal.file_byts
holds "has its code" "error E1012:" "$work/err"
holds "suggests a key" "wal.file_bytes" "$work/err"
exits 2 "another address needs allow_unauthenticated" "$t" server --data d2 --listen 0.0.0.0:0 --http-listen 127.0.0.1:0
holds "and says so" "allow_unauthenticated" "$work/err"

start_broker
holds "the ready line" "ready native=127.0.0.1:" "$work/ready"
"$t" server --data closed --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 <&- >&- 2>&- &
other=$!
eventually "a broker without standard descriptors has /dev/null there" 10 bash -c "[ \"\$(readlink /proc/$other/fd/0 /proc/$other/fd/1 /proc/$other/fd/2 | sort -u)\" = /dev/null ]"
eventually "and is on its way" 10 [ -e closed/node.toml ]
kill $other; wait $other
same "and stops cleanly" 0 $?
"$t" topic create kept -q >/dev/null
seq 1 1000 | "$t" pub kept -q
exits 1 "a locked data directory" "$t" server --data data --listen 127.0.0.1:0 --http-listen 127.0.0.1:0
holds "has its code and fix" "error E5305:" "$work/err"
exits 1 "a port in use" "$t" server --data d3 --listen "$TAILRACE_SERVERS" --http-listen 127.0.0.1:0
holds "has its code" "error E5401:" "$work/err"
same "nothing is left of the attempt" none "$([ -e d3 ] || echo none)"
exits 5 "too few descriptors" bash -c 'ulimit -n 24; exec "$0" server --data d4 --listen 127.0.0.1:0 --http-listen 127.0.0.1:0' "$t"
holds "has its code, and how many it needs" "need 192" "$work/err"
echo x >plain
exits 2 "a data directory that is a file" "$t" server --data plain --listen 127.0.0.1:0 --http-listen 127.0.0.1:0
holds "is called that" "not a directory" "$work/err"
exits 5 "the HTTP port as the native one" "$t" topic ls --servers "$http"
holds "says which port is meant" "native port" "$work/err"
mkdir foreign && echo x >foreign/file
exits 1 "a foreign directory" "$t" server --data foreign --listen 127.0.0.1:0 --http-listen 127.0.0.1:0
holds "has its code" "error E5306:" "$work/err"
same "and stays as it was" file "$(ls -A foreign)"
stop_broker
same "SIGTERM stops it cleanly" 0 $?
start_broker
same "all is there after a restart" "$(seq 1 1000)" "$("$t" tail kept -o raw -q)"
kill -9 "$broker"; wait "$broker" 2>/dev/null; broker=
start_broker
same "and after SIGKILL" "$(seq 1 1000)" "$("$t" tail kept -o raw -q)"

# pub goes on over a restart of the broker on the same port
mkfifo pipe
"$t" pub kept -o jsonl <pipe >receipts 2>pub.err &
publisher=$!
exec 7>pipe
echo before >&7
eventually "a receipt before" 5 grep -q '"line":1,' receipts
"$t" tail kept --from end -o raw >followed 2>follow.err &
follower=$!
eventually "following shows what is published" 5 bash -c '"$0" pub kept probe -q; grep -q probe followed' "$t"
kill -9 "$broker"; wait "$broker" 2>/dev/null
address=$TAILRACE_SERVERS
: >ready
"$t" server --data data --listen "$address" --http-listen 127.0.0.1:0 >ready 2>>broker.log 7>&- & # without the pipe: it would keep it open
broker=$!
echo after >&7
eventually "a receipt after the restart" 20 grep -q '"line":2,' receipts
eventually "following goes on after the restart" 20 grep -q after followed
kill -INT $follower; wait $follower 2>/dev/null
exec 7>&-
wait $publisher
same "pub ends well" 0 $?
holds "the lost connection was told" "warn" pub.err
same "both records once" "$(printf 'before\nafter')" "$("$t" tail kept --from 1000 -o raw -q | grep -v probe)"
same "what was followed came once each" 1 "$(grep -c after followed)"
stop_broker

exits 0 "log verify of a good directory" "$t" log verify data
holds "says what it saw" "2 partitions with 1,00" "$work/out"
for f in data/shard-0/checkpoint-0 data/shard-0/wal/00.log $(find data/topics -type f); do
  case $(basename "$f") in
    *.log | *.idx | *.snap | *checkpoint-0) exits 0 "log dump $(basename "$f")" "$t" log dump "$f" ;;
  esac
done
exits 2 "log dump of a file that is none of ours" "$t" log dump "$t"
exits 3 "log verify of nothing" "$t" log verify data/missing
holds "is a sentence" "The file or directory does not exist: " "$work/err"
# A flipped byte inside a record: found, named, and the rest is still looked at.
segment=$(grep -lr '' --include=*.log data/topics | xargs grep -l after | head -n 1)
at=$(grep -obUa after "$segment" | head -n 1 | cut -d: -f1)
printf X | dd of="$segment" bs=1 seek="$at" conv=notrunc 2>/dev/null
exits 1 "log verify finds a flipped byte" "$t" log verify data
holds "names the file" "$segment" "$work/out"
lacks "in a sentence, not in JSON" "{" "$work/out"
holds "says where to read on" "explain E5303" "$work/err"
holds "says so in one line" "DAMAGED" "$work/out"
exits 1 "log dump goes on past it, and exits 1" "$t" log dump "$segment"
# The way out of damage: look, read around it, give it up, go on.
start_broker
topic=$(for name in kept; do "$t" topic describe $name -o json | grep -q '"damage":"[^"]' && echo $name; done)
same "describe names the damage after a start" kept "$topic"
exits 1 "reading into it is an error" "$t" tail kept --from start
holds "with its code" "error E5303:" "$work/err"
exits 1 "publishing is refused" "$t" pub kept more
holds "with its code" "error E5303:" "$work/err"
exits 6 "skip-damage --dry-run says what would be given up" "$t" topic skip-damage kept -p 0 --dry-run
holds "in offsets" "would give up of kept[0]: offsets" "$work/out"
exits 2 "skip-damage without a terminal needs --yes" "$t" topic skip-damage kept -p 0
exits 3 "a partition that is not there" "$t" topic skip-damage kept -p 7 --yes
exits 3 "a topic that is not there" "$t" topic skip-damage none -p 0 --yes
lacks "is not to be created" "topic create" "$work/err"
exits 0 "skip-damage --yes" "$t" topic skip-damage kept -p 0 --yes
exits 0 "a second time there is nothing to do" "$t" topic skip-damage kept -p 0 --yes
exits 0 "publishing goes on" "$t" pub kept more -q
exits 0 "reading goes on behind the hole" "$t" tail kept -o raw -q
same "to what came after" more "$(tail -n 1 "$work/out")"
stop_broker
start_broker
exits 0 "and after a restart" "$t" tail kept -o raw -q
same "all the same" more "$(tail -n 1 "$work/out")"
exits 1 "log verify of a directory in use" "$t" log verify data
holds "says that it is in use" "Another process uses this data directory" "$work/err"
lacks "and names no flag it has not" "--data" "$work/err"
stop_broker
exits 3 "log dump of nothing" "$t" log dump data/missing
exits 2 "log dump of a directory" "$t" log dump data
holds "names the command for it" "tailrace log verify data" "$work/err"
exits 2 "log verify of a file" "$t" log verify plain
holds "says so" "E5312" "$work/err"

: >ready  # or the wait below could still see the last broker's line
"$t" dev --ephemeral --seed orders --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 >ready 2>dev.err &
broker=$!
eventually "dev gets ready" 20 grep -q '^ready ' ready
export TAILRACE_SERVERS; TAILRACE_SERVERS=$(sed -n 's/^ready .*native=\([^ ]*\).*/\1/p' ready)
eventually "dev prints URLs" 5 grep -q 'http://127.0.0.1' dev.err
directory=$(sed -n 's/^data  *\([^ ]*\) .*/\1/p' dev.err)
exits 0 "a dev broker creates topics on use" "$t" pub greetings hello -k me
same "they are there" hello "$("$t" tail greetings -o raw -q)"
eventually "the sample producer produces" 10 bash -c '[ "$("$0" tail orders -o raw -q | wc -l)" -ge 3 ]' "$t"
kill -INT "$broker"; wait "$broker"
same "Ctrl-C stops dev" 0 $?
broker=
same "its data is removed" gone "$([ -e "${directory:-/}" ] || echo gone)"
finish
