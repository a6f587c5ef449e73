#!/usr/bin/env bash
# What the command line does without any broker: help, usage errors, colours, unreachable brokers, generators.
source "$(dirname "$0")/lib.sh" "$@"
export TAILRACE_SERVERS=127.0.0.1:1  # nothing listens there

# Help is data: stdout, exit 0, on every command, with examples.
commands=$("$tailrace" gen completion bash | sed -n "s/^    'tailrace *\([^']*\)') commands='';.*/\1/p")
same "the tree of commands is known" yes "$([ "$(wc -l <<<"$commands")" -ge 20 ] && echo yes)"
while read -r command; do
  # shellcheck disable=SC2086
  exits 0 "help of: $command" "$tailrace" $command --help
  [ "$command" = help ] || holds "examples in: $command" "tailrace" "$work/out"
  empty "nothing on stderr: $command" "$work/err"
done <<<"$commands"
exits 0 "version" "$tailrace" --version
holds "version says which" "tailrace 0." "$work/out"
exits 0 "version is a command too" "$tailrace" version
for subject in exit-codes environment formats; do exits 0 "help $subject" "$tailrace" help $subject; done
exits 0 "help alone lists the commands" "$tailrace" help
holds "as --help does" "$("$tailrace" --help | tail -n 1)" "$work/out"
while read -r command; do
  # shellcheck disable=SC2086
  same "help $command" "$("$tailrace" $command --help)" "$("$tailrace" help $command)"
done <<<"$commands"
exits 2 "help on nothing" "$tailrace" help pubb
holds "suggests" "Did you mean pub?" "$work/err"

# Every flag that takes a number, a duration, a size or one of a few words refuses what is none, in a sentence that names the
# flag, in no library's words, and points to the help of just this command. Read off the help, so that none is forgotten.
refused() {  # refused COMMAND FLAG VALUE
  # shellcheck disable=SC2046,SC2086
  exits 2 "$1 $2 $3" "$tailrace" $1 $([ "$1" = "gen completion" ] && echo bash || echo t) "$2=$3"
  holds "  names the flag" "error E1010: $2" "$work/err"
  holds "  points to its help" "tailrace $1 --help" "$work/err"
  same "  one line, no library words" "1 0" "$(wc -l <"$work/err") $(grep -cE 'FAILED|Could not|required .* missing|\{|->|e\+|[0-9]{30}' "$work/err")"
}
flags=0
while read -r command; do
  while read -r flag type; do
    flags=$((flags + 1))
    case $type in
      N) for bad in x '' -1 1.5 0x10 99999999999999999999; do refused "$command" "$flag" "$bad"; done ;;
      R) for bad in x '' 0 -1 1e9 nan inf; do refused "$command" "$flag" "$bad"; done ;;
      DURATION) for bad in x '' 5 -1s 200y; do refused "$command" "$flag" "$bad"; done ;;
      SIZE) for bad in x '' -1 1Q 1e3; do refused "$command" "$flag" "$bad"; done ;;
      *\|* | orders) for bad in x '' 0 1 "$type"; do [ "$bad" = orders ] || refused "$command" "$flag" "$bad"; done ;;
      *) flags=$((flags - 1)) ;;
    esac
  # shellcheck disable=SC2086
  done < <("$tailrace" $command --help | sed -nE 's/^ +(-[A-Za-z],)?(--[a-z-]+) ([A-Za-z0-9|_-]+)( .*)?$/\2 \3/p')
done <<<"$(grep ' ' <<<"$commands"; printf '%s\n' pub tail server dev)"
same "they were found in the help" yes "$([ $flags -ge 60 ] && echo yes || echo $flags)"
for zero in "pub t --count" "tail t --count" "topic create t --partitions" "bench pub --records" "bench pub --producers" "bench pub --duration" "tail t --timeout"; do
  # shellcheck disable=SC2086
  exits 2 "$zero 0 means nothing" "$tailrace" $zero 0
done
exits 2 "a flag without its value" "$tailrace" pub t --skip
holds "says which" "--skip needs a value: N" "$work/err"
exits 2 "a flag twice" "$tailrace" pub t --skip 1 --skip 2
holds "says so" "--skip is given more than once" "$work/err"

# -o: each command lists what it writes, takes just that, and refuses the rest.
while read -r command; do
  # shellcheck disable=SC2086
  has=$("$tailrace" $command --help | sed -nE 's/^ +-o,--output ([a-z|]+).*/\1/p')
  # shellcheck disable=SC2086
  argument=$("$tailrace" $command --help | grep -q '^Usage.*\] .*[A-Z]' && echo nothing)
  [ "$command" != "topic skip-damage" ] || argument="nothing -p 0"  # what is missing is told before what is wrong
  for format in table json jsonl raw; do
    # shellcheck disable=SC2086
    "$tailrace" --timeout 100ms -o $format $command $argument >/dev/null 2>"$work/err" </dev/null
    # shellcheck disable=SC2086
    "$tailrace" --timeout 100ms $command $argument -o $format >/dev/null 2>>"$work/err" </dev/null
    case "|$has|" in
      *"|$format|"*) lacks "$command takes -o $format" "--output" "$work/err" ;;
      *) [ -z "$has" ] || same "$command refuses -o $format" 2 "$(grep -c "error E1010: --output: \"$format\"" "$work/err")" ;;
    esac
  done
done <<<"$(grep -E '^(topic|log|config|bench) .' <<<"$commands"; printf '%s\n' pub tail explain)"

# Common flags may stand in front of the command.
exits 5 "--servers in front" "$tailrace" --servers 127.0.0.1:2 -q topic ls
holds "is taken" "127.0.0.1:2" "$work/err"
exits 5 "and in the middle" "$tailrace" topic --servers 127.0.0.1:3 ls
holds "is taken" "127.0.0.1:3" "$work/err"

# Wrong flags: 2, one line, with the close name.
exits 2 "no command" "$tailrace"
exits 2 "unknown command" "$tailrace" tpoic ls
holds "unknown command is told" 'no command "tpoic"' "$work/err"
holds "did you mean, commands" "Did you mean topic?" "$work/err"
exits 2 "unknown flag" "$tailrace" tail orders --form start
holds "did you mean, flags" "--from" "$work/err"
same "one line" 1 "$(wc -l <"$work/err")"
empty "nothing on stdout" "$work/out"
exits 2 "missing topic" "$tailrace" pub
exits 2 "wrong choice" "$tailrace" tail orders -o yaml
exits 2 "wrong position" "$tailrace" tail orders --from begin
exits 2 "wrong size" "$tailrace" bench pub --rate 10 --size lots
exits 2 "bad header" "$tailrace" pub orders x -H nonsense
exits 2 "-F with --until" "$tailrace" tail orders -F --until end
exits 2 "two key rules" "$tailrace" pub orders x -k a --key-sep :
exits 2 "bad expression" "$tailrace" pub orders x --key-regex '('
exits 2 "a topic key without a value" "$tailrace" topic create t -c retention_time
exits 3 "a missing file" "$tailrace" pub orders --file missing
exits 2 "format that is not available" "$tailrace" topic describe t -o raw

# No broker: 5, soon, and what to try.
started=$SECONDS
exits 5 "unreachable broker" "$tailrace" topic ls
holds "unreachable names the address" "127.0.0.1:1" "$work/err"
holds "unreachable has its code" "error E3004:" "$work/err"
holds "unreachable says what to try" "tailrace dev" "$work/err"
exits 5 "unreachable, pub" "$tailrace" pub orders hello
exits 5 "unreachable, tail" "$tailrace" tail orders
exits 5 "unreachable, --servers wins" "$tailrace" topic ls --servers 127.0.0.1:2
holds "--servers wins over the environment" "127.0.0.1:2" "$work/err"
for timeout in 200ms 2s; do
  exits 5 "unreachable within $timeout" "$tailrace" topic ls --timeout $timeout
  holds "still says why" "Connection refused" "$work/err"
done
# A server that takes the connection and says nothing: Ctrl-C ends the waiting.
if command -v python3 >/dev/null; then
  python3 -c 'import socket,time
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); print(s.getsockname()[1], flush=True); time.sleep(60)' >port &
  silent=$!
  eventually "a silent server" 5 grep -q . port
  "$tailrace" topic ls --servers "127.0.0.1:$(cat port)" 2>"$work/err" &
  waiting=$!
  sleep 0.5
  kill -INT $waiting
  wait $waiting
  same "Ctrl-C while connecting exits 130" 130 $?
  holds "and says so" "interrupted while connecting" "$work/err"
  kill $silent
fi
same "unreachable is said soon" yes "$([ $((SECONDS - started)) -le 30 ] && echo yes)"

# Colours: never in a pipe, unless forced.
exits 2 "no colours by themselves" "$tailrace" tail
lacks "no escape sequences" $'\033' "$work/err"
FORCE_COLOR=1 "$tailrace" tail orders 2>"$work/err"
holds "FORCE_COLOR" $'\033[1;31merror E3004' "$work/err"
FORCE_COLOR=1 NO_COLOR=1 "$tailrace" tail orders 2>"$work/err"
lacks "NO_COLOR wins" $'\033' "$work/err"
NO_COLOR=1 "$tailrace" tail orders --color always 2>"$work/err"
holds "--color wins over both" $'\033' "$work/err"

# Closed standard descriptors (cron, some supervisors): an error or silence, never another file in their place.
timeout 10 "$tailrace" pub t <&- 2>"$work/err"
same "pub with its input closed" 2 $?
holds "says so" "standard input is closed" "$work/err"
timeout 10 "$tailrace" version >&- 2>"$work/err"
same "output with nowhere to go is an error" 1 $?
holds "and says so" "Bad file descriptor" "$work/err"

# explain
exits 0 "explain" "$tailrace" explain E2031
holds "explain tells the sentence" "does not exist" "$work/out"
exits 0 "explain by name" "$tailrace" explain no_such_topic -o json
holds "explain json" '"code":2031' "$work/out"
exits 0 "explain all" "$tailrace" explain
exits 3 "explain what does not exist" "$tailrace" explain E2032x
holds "explain suggests" "E2032" "$work/err"

# gen orders: the same bytes for a seed, a closed pipe is quiet.
same "gen orders is deterministic" "$("$tailrace" gen orders --count 500 --seed 5 | sha256sum)" "$("$tailrace" gen orders --count 500 --seed 5 | sha256sum)"
same "gen orders counts" 500 "$("$tailrace" gen orders --count 500 | wc -l)"
{ "$tailrace" gen orders --count 1000000 2>"$work/err"; echo $? >"$work/status"; } | head -n 1 >/dev/null
same "a reader that leaves is no error" 0 "$(cat "$work/status")"
empty "a reader that leaves is quiet" "$work/err"
"$tailrace" gen orders --count 100000 >/dev/full 2>"$work/err"
same "a full disk is an error" 1 $?
holds "a full disk is told" "No space left" "$work/err"
finish
