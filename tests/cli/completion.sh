#!/usr/bin/env bash
# The completion scripts parse, and bash really completes with them.
source "$(dirname "$0")/lib.sh" "$@"
export TAILRACE_SERVERS=127.0.0.1:1
"$tailrace" gen completion bash >completion.bash
exits 0 "bash parses it" bash -n completion.bash
if command -v zsh >/dev/null; then
  "$tailrace" gen completion zsh >_tailrace
  exits 0 "zsh parses it" zsh -n _tailrace
fi
exits 0 "zsh's script is written" "$tailrace" gen completion zsh
holds "zsh's script knows tail" "_tailrace_tail()" "$work/out"

# complete WORDS...: what bash offers for the last word
complete_words() {
  bash -c '
    source completion.bash
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
    _tailrace
    printf "%s\n" "${COMPREPLY[@]}"' complete "$@"
}
offers() { if complete_words "${@:3}" | grep -xF -- "$2" >/dev/null; then pass "$1"; else fail "$1: $(complete_words "${@:3}" | tr '\n' ' ')"; fi; }
offers "commands" tail tailrace ta
offers "subcommands" create tailrace topic ''
offers "flags" --key-regex tailrace pub orders --key
offers "flags after a value" --partition tailrace tail orders --from start --par
offers "choices" jsonl tailrace tail orders -o ''
offers "choices of the long spelling" zstd tailrace pub orders --compression z
offers "shells" zsh tailrace gen completion ''
touch input.log
offers "files" input.log tailrace pub orders --file in
offers "files as arguments" input.log tailrace log dump in
same "a flag's free value offers nothing" "" "$(complete_words tailrace tail orders --key '')"
offers "where to read from" start tailrace tail orders --from ''
offers "configuration keys" wal.file_bytes tailrace config explain wal.
offers "error codes" E5303 tailrace explain E53
offers "commands behind a flag in front" topic tailrace --servers 127.0.0.1:1 to
same "a value that looks like a command is skipped" "--partitions" "$(complete_words tailrace topic create --timeout tail t --partit)"
# Every flag of every command's help is offered, and nothing else.
for command in "topic create" pub tail "bench pub" server; do
  # shellcheck disable=SC2086
  wanted=$("$tailrace" $command --help | grep -oE '^ +(-[A-Za-z],)?--[a-z-]+' | grep -oE '\-\-[a-z-]+' | sort -u)
  # shellcheck disable=SC2086
  same "all flags of $command" "$wanted" "$(complete_words tailrace $command -- | grep -v '^$' | sort -u)"
done
finish
