#!/usr/bin/env bash
# Runs every fuzz target of a build: tests/fuzz/run.sh SECONDS BUILD_DIR [TARGET...]
#   1. each target for SECONDS from the corpus in the tree; prints its executions, fails on a crash
#   2. each target again with the planted decoder bug (TAILRACE_PLANT=decoder_length), which it must find
# A crashing input is kept under BUILD_DIR/fuzz/found; once the bug is mended, put the file into tests/fuzz/corpus/TARGET.
# FUZZ_MODE=run or FUZZ_MODE=planted does only one of the two. FUZZ_PLANTED_SECONDS: time for the second (default 60).
set -uo pipefail
[ $# -ge 2 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
seconds=$1 build=$(readlink -f "$2")
shift 2
here=$(cd "$(dirname "$0")" && pwd)
mode=${FUZZ_MODE:-both}
planted_seconds=${FUZZ_PLANTED_SECONDS:-60}
found=$build/fuzz/found
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$found"
# The quarantine would count against the memory limit; 64 MiB of it still finds uses after free.
export ASAN_OPTIONS="quarantine_size_mb=64:${ASAN_OPTIONS:-}"
export ASAN_SYMBOLIZER_PATH=${ASAN_SYMBOLIZER_PATH:-/usr/bin/llvm-symbolizer-19}

targets=()
for program in "$build"/fuzz/fuzz_*; do
  [ -f "$program" ] && [ -x "$program" ] || continue
  name=$(basename "$program")
  [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
  targets+=("$name")
done
[ ${#targets[@]} -gt 0 ] || { echo "error: no fuzz target in $build/fuzz (cmake --preset asan builds them)" >&2; exit 2; }

# fuzz NAME SECONDS LOG: runs one target, with a scratch folder for the inputs it discovers
fuzz() {
  local name=$1 limit=$2 log=$3
  local scratch=$work/$name.corpus
  rm -rf "$scratch"
  mkdir -p "$scratch"
  "$build/fuzz/$name" -max_total_time="$limit" ${FUZZ_SEED:+-seed="$FUZZ_SEED"} -max_len=16384 -timeout=5 -rss_limit_mb=512 -print_final_stats=1 \
    -artifact_prefix="$found/$name-" "$scratch" "$here/corpus/$name" >"$log" 2>&1
}
stat_of() { sed -n "s/^stat::$1: *//p" "$2" | tail -1; }

bad=0
if [ "$mode" != planted ]; then
  for name in "${targets[@]}"; do
    if fuzz "$name" "$seconds" "$work/$name.log"; then
      printf '%-16s %10s executions in %s s, %s a second, peak %s MiB\n' "$name" "$(stat_of number_of_executed_units "$work/$name.log")" \
        "$seconds" "$(stat_of average_exec_per_sec "$work/$name.log")" "$(stat_of peak_rss_mb "$work/$name.log")"
    else
      bad=1
      echo "FAILED $name: its last lines"
      tail -n 60 "$work/$name.log"
    fi
  done
fi
if [ "$mode" != run ]; then
  found=$work/planted
  mkdir -p "$found"
  for name in "${targets[@]}"; do
    started=$SECONDS
    if TAILRACE_PLANT=decoder_length fuzz "$name" "$planted_seconds" "$work/$name.log"; then
      bad=1
      echo "FAILED $name: the planted decoder bug was not found in $planted_seconds s"
    elif grep -qE 'ERROR: (AddressSanitizer|libFuzzer)|runtime error:|fuzz assertion failed' "$work/$name.log"; then
      printf '%-16s finds the planted decoder bug after %s executions, %s s: %s\n' "$name" \
        "$(stat_of number_of_executed_units "$work/$name.log")" $((SECONDS - started)) \
        "$(grep -m1 -oE 'AddressSanitizer: [a-zA-Z-]+|libFuzzer: [a-z-]+|runtime error: .{0,60}|fuzz assertion failed: .*' "$work/$name.log")"
    else
      bad=1
      echo "FAILED $name with the planted bug, but not by finding it:"
      tail -n 40 "$work/$name.log"
    fi
  done
fi
exit $bad
