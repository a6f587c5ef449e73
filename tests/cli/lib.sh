# Sourced by the scripts here: source lib.sh BINARY. Each check prints one line; finish() fails the script if any failed.
set -uo pipefail
export LC_ALL=C
unset NO_COLOR FORCE_COLOR TAILRACE_SERVERS TAILRACE_CLIENT_ID
tailrace=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/tailrace-cli.XXXXXX")
broker=
checks=0 failures=0
cleanup() {
  if [ -n "$broker" ]; then kill -9 "$broker" 2>/dev/null; wait "$broker" 2>/dev/null; fi
  rm -rf "$work"
}
trap cleanup EXIT
cd "$work" || exit 1

# start_broker [ARGUMENTS...]: on any free port, data in $work/data. With a second argument to the script, that program (the
# SDK's fake broker) instead of the real one.
fake=${2:-}
start_broker() {
  : >"$work/ready"
  if [ -n "$fake" ]; then "$fake" >"$work/ready" 2>>"$work/broker.log" &
  else "$tailrace" server --data "$work/data" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 "$@" >"$work/ready" 2>>"$work/broker.log" &
  fi
  broker=$!
  for _ in $(seq 400); do
    grep -q '^ready ' "$work/ready" && break
    kill -0 "$broker" 2>/dev/null || break
    sleep 0.05
  done
  if ! grep -q '^ready ' "$work/ready"; then
    echo "the broker did not start:"
    tail -n 20 "$work/broker.log"
    exit 1
  fi
  TAILRACE_SERVERS=$(sed -n 's/^ready .*native=\([^ ]*\).*/\1/p' "$work/ready")
  http=$(sed -n 's/^ready .*http=\([^ ]*\).*/\1/p' "$work/ready")
  export TAILRACE_SERVERS
}
stop_broker() {
  kill -TERM "$broker"
  wait "$broker"
  local status=$?
  broker=
  return $status
}

# The broker stops where it is. A signal takes its time until the last thread has it.
silence() {
  kill -STOP "$broker"
  for _ in $(seq 400); do
    grep -L '^State:.T' /proc/"$broker"/task/*/status 2>/dev/null | grep -q . || return 0
    sleep 0.01
  done
  echo "the broker does not stop"; exit 1
}

pass() { checks=$((checks + 1)); echo "ok    $*"; }
fail() { checks=$((checks + 1)); failures=$((failures + 1)); echo "FAIL  $*"; }
# exits N CLAIM COMMAND...: output in $work/out, errors in $work/err
exits() {
  local wanted=$1 claim=$2
  shift 2
  "$@" >"$work/out" 2>"$work/err"
  local got=$?
  if [ $got -eq "$wanted" ]; then pass "$claim"; else
    fail "$claim: exit $got instead of $wanted: $*"
    sed 's/^/      out: /' "$work/out" | head -n 5
    sed 's/^/      err: /' "$work/err" | head -n 5
  fi
}
# same CLAIM EXPECTED GOT
same() { if [ "$2" = "$3" ]; then pass "$1"; else fail "$1"; printf '      expected: %s\n      got:      %s\n' "$2" "$3" | cut -c1-400; fi; }
same_file() { if cmp -s "$2" "$3"; then pass "$1"; else fail "$1"; cmp "$2" "$3" | sed 's/^/      /'; fi; }
# holds CLAIM TEXT FILE: the file contains the text
holds() { if grep -qF -- "$2" "$3"; then pass "$1"; else fail "$1: no \"$2\" in:"; sed 's/^/      /' "$3" | head -n 8; fi; }
lacks() { if grep -qF -- "$2" "$3"; then fail "$1: \"$2\" is in it"; else pass "$1"; fi; }
empty() { if [ -s "$2" ]; then fail "$1"; sed 's/^/      /' "$2" | head -n 5; else pass "$1"; fi; }
# eventually CLAIM SECONDS COMMAND...
eventually() {
  local claim=$1 tries=$(($2 * 20))
  shift 2
  for _ in $(seq $tries); do
    if "$@" >/dev/null 2>&1; then pass "$claim"; return; fi
    sleep 0.05
  done
  fail "$claim"
}
finish() {
  [ $checks -gt 0 ] || { echo "no check ran"; exit 1; }
  echo "$((checks - failures)) checks passed, $failures failed"
  [ $failures -eq 0 ]
  exit $?
}
