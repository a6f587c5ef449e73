#!/usr/bin/env bash
# The README's tour, line by line as a reader pastes it, and the demo with a small file given relative to the caller:
# tour.sh TAILRACE SOURCE_DIR
source_dir=$2
set -- "$1"
source "$(dirname "$0")/lib.sh" "$@"
# block N: the N-th sh block of the section
block() { awk -v n="$1" '/^## /{ on = ($0 == "## Five minutes") } on && /^```sh/{ k++; open = 1; next } /^```/{ open = 0 } on && open && k == n' "$source_dir/README.md"; }
mkdir bin && ln -s "$tailrace" bin/tailrace
export PATH=$work/bin:$PATH
export TAILRACE_LISTEN__NATIVE=127.0.0.1:0 TAILRACE_LISTEN__HTTP=127.0.0.1:0  # the usual ports may be taken here

same "the first block ends with the broker" "tailrace dev" "$(block 1 | tail -n 1 | sed 's/ *#.*//')"
: >ready
bash -c "exec $(block 1 | tail -n 1)" >ready 2>dev.log &
broker=$!
eventually "it gets ready" 20 grep -q '^ready ' ready
TAILRACE_SERVERS=$(sed -n 's/^ready .*native=\([^ ]*\).*/\1/p' ready)
http=$(sed -n 's/^ready .*http=\([^ ]*\).*/\1/p' ready)
export TAILRACE_SERVERS http
# Not every machine has curl: the page is fetched by the shell.
curl() {
  exec 5<>"/dev/tcp/${http%:*}/${http##*:}"
  printf 'GET %s HTTP/1.0\r\n\r\n' "/${2#*//*/}" >&5
  cat <&5
}
export -f curl
lines=0
while IFS= read -r line; do
  case $line in 'export PATH='*) continue ;; esac
  lines=$((lines + 1))
  exits 0 "$line" timeout 60 bash -o pipefail -c "$line"
  same "  shows something" yes "$([ -s "$work/out" ] || [ -s "$work/err" ] || [ -s events.jsonl ] && echo yes)"
  case $line in *metrics*) holds "  metrics" "tailrace_" "$work/out" ;; esac
done < <(block 2)
same "the whole tour was run" yes "$([ $lines -ge 10 ] && echo yes)"
kill -INT "$broker"; wait "$broker"
same "Ctrl-C stops the broker" 0 $?
broker=
exits 0 "$(block 3)" bash -c "$(block 3)"
holds "is ok" "ok  " "$work/out"

printf 'one\ntwo' >small.txt
unset TAILRACE_LISTEN__NATIVE TAILRACE_LISTEN__HTTP
exits 0 "demo with a small file" "$source_dir/tests/process/demo.sh" "$tailrace" small.txt
empty "  without a word of the shell" "$work/err"
holds "  says what it read" "small.txt: 2 lines, 7 bytes" "$work/out"
exits 2 "demo with a file that is not there" "$source_dir/tests/process/demo.sh" "$tailrace" missing.txt
exits 2 "./dev without a command" "$source_dir/dev"
exits 0 "./dev help" "$source_dir/dev" help
finish
