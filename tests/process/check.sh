#!/usr/bin/env bash
# Builds and runs every test of the project: ./dev check [--fast]. The last line is "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/../.."
fast=0
[ "${1:-}" != --fast ] || fast=1
started=$SECONDS
passed=0 failed=0 failures=() left_out=()
logs=build/check
mkdir -p "$logs"

say() { printf '== [%4d s] %s\n' $((SECONDS - started)) "$*"; }

# step NAME COMMAND...: one thing that passes or fails as a whole
step() {
  local name=$1
  shift
  say "$name: $*"
  "$@" >"$logs/$name.log" 2>&1
  local status=$?
  if [ $status -eq 77 ]; then
    left_out+=("$name: $(tail -n 1 "$logs/$name.log")")
    tail -n 1 "$logs/$name.log"
  elif [ $status -eq 0 ]; then
    passed=$((passed + 1))
    tail -n 3 "$logs/$name.log"
  else
    failed=$((failed + 1)); failures+=("$name")
    echo "FAILED $name (exit $status), its last lines:"
    tail -n 60 "$logs/$name.log"
  fi
}

# suite NAME BUILD_DIR CTEST_ARGS...: counts each test case
suite() {
  local name=$1 dir=$2
  shift 2
  say "$name: ctest --test-dir $dir $*"
  rm -f "$logs/$name.xml"
  timeout 2400 ctest --test-dir "$dir" -j2 --output-on-failure --output-junit "$PWD/$logs/$name.xml" --no-tests=error "$@" >"$logs/$name.log" 2>&1
  local status=$? tests bad skipped
  tests=$(sed -n 's/.*<testsuite .*\btests="\([0-9]*\)".*/\1/p;s/^[[:space:]]*tests="\([0-9]*\)".*/\1/p' "$logs/$name.xml" 2>/dev/null | head -1)
  bad=$(sed -n 's/.*\bfailures="\([0-9]*\)".*/\1/p' "$logs/$name.xml" 2>/dev/null | head -1)
  skipped=$(sed -n 's/.*\bskipped="\([0-9]*\)".*/\1/p' "$logs/$name.xml" 2>/dev/null | head -1)
  if [ -z "$tests" ] || [ -z "$bad" ] || { [ $status -ne 0 ] && [ "$bad" = 0 ]; }; then
    failed=$((failed + 1)); failures+=("$name: ctest did not finish (exit $status)")
    tail -n 40 "$logs/$name.log"
    return
  fi
  passed=$((passed + tests - bad - ${skipped:-0})); failed=$((failed + bad))
  [ "${skipped:-0}" = 0 ] || left_out+=("$name: $skipped test cases, for want of what this machine has not")
  if [ "$bad" != 0 ]; then
    failures+=("$name: $bad of $tests")
    grep -E '^ *[0-9]+ - |\(Failed\)|\(Timeout\)|Failure|error:' "$logs/$name.log" | tail -n 60
  fi
  grep -E 'tests passed|Total Test time' "$logs/$name.log"
}

# Properties draw the same cases in every check, so that a change is judged by what it changed; run them without this for new ones.
export RC_PARAMS="${RC_PARAMS:-seed=7}"
export FUZZ_SEED="${FUZZ_SEED:-1}"

./dev deps || { echo "cannot install packages"; echo "0 passed, 1 failed"; exit 1; }
builds=(dev release)
[ $fast = 1 ] || builds+=(asan tsan)
for preset in "${builds[@]}"; do
  targets=()
  [ $preset != release ] || targets=(tailrace)
  [ $preset != tsan ] || targets=(tsan_tests)
  step "build-$preset" ./dev build-for-check "$preset" "${targets[@]}"
  if [ $failed -gt 0 ]; then
    say "the build failed, no test can run"
    echo "$passed passed, $failed failed"
    exit 1
  fi
done

step tidy tests/tidy/tidy.sh
suite dev build/dev
step demo tests/process/demo.sh build/release/bin/tailrace
step crash-short build/dev/tests/crash_driver --binary build/dev/bin/tailrace --cycles 25
step disk-full tests/process/disk_full.sh build/release/bin/tailrace
step flood build/dev/tests/flood --binary build/release/bin/tailrace --small
step idle-cost env BOUND=memory IDLE_SECONDS=1 tests/process/idle_cost.sh build/release/bin/tailrace build/dev/tests/flood 2000 1000
step crash-flush build/dev/tests/crash_driver --binary build/dev/bin/tailrace --flush-proof
if [ $fast = 0 ]; then
  export ASAN_SYMBOLIZER_PATH=/usr/bin/llvm-symbolizer-19 TSAN_OPTIONS="external_symbolizer_path=/usr/bin/llvm-symbolizer-19"
  suite asan build/asan
  suite tsan build/tsan -L tsan
  step fuzz tests/fuzz/run.sh 20 build/asan
fi

say "done"
for f in "${left_out[@]}"; do echo "not run: $f"; done
for f in "${failures[@]}"; do echo "failed: $f"; done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
