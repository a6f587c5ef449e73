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
for subject in exit-codes environment formats; do exits 0 "help $subject" "$tailrace" help $subject; done

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
same "unreachable is said soon" yes "$([ $((SECONDS - started)) -le 20 ] && echo yes)"

# Colours: never in a pipe, unless forced.
exits 2 "no colours by themselves" "$tailrace" tail
lacks "no escape sequences" $'\033' "$work/err"
FORCE_COLOR=1 "$tailrace" tail orders 2>"$work/err"
holds "FORCE_COLOR" $'\033[1;31merror E3004' "$work/err"
FORCE_COLOR=1 NO_COLOR=1 "$tailrace" tail orders 2>"$work/err"
lacks "NO_COLOR wins" $'\033' "$work/err"
NO_COLOR=1 "$tailrace" tail orders --color always 2>"$work/err"
holds "--color wins over both" $'\033' "$work/err"

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
