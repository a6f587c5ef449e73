#!/usr/bin/env bash
# deploy/ against the program: the example configuration, every metric of dashboard and alerts, the seccomp profile, the unit.
# deploy.sh TAILRACE DEPLOY_DIR SECCOMP_RUN
deploy=$2 seccomp_run=$3
source "$(dirname "$0")/lib.sh" "$1"
t=$tailrace

exits 0 "the example configuration is valid" "$t" config check "$deploy/config/tailrace.toml"
# Uncommented it is the default in every key but the data directory.
sed -E 's/^# ([a-z_]+ = )/\1/' "$deploy/config/tailrace.toml" >all.toml
exits 0 "also with every key written out" "$t" config check all.toml
same "it names every key, with its default" "$("$t" config show | grep -v '^directory' | grep ' = ' | sort)" "$("$t" config show -c all.toml | grep -v '^directory' | grep ' = ' | sort)"
missing=$("$t" config show --origin -c all.toml | grep -c '# default' || true)
same "no key is left out" 0 "$missing"

# Metrics: /metrics of a broker that was used, over plain bash sockets.
start_broker
"$t" topic create m -q >/dev/null
seq 1 100 | "$t" pub m -q
"$t" tail m -q >/dev/null
fetch() {
  exec 8<>"/dev/tcp/${http%:*}/${http##*:}"
  printf 'GET %s HTTP/1.0\r\nHost: x\r\n\r\n' "$1" >&8
  cat <&8
  exec 8>&-
}
"$t" tail m -q -g readers --commit >/dev/null
for _ in $(seq 80); do  # what is said of groups is gathered every five seconds
  fetch /metrics >metrics.txt
  grep -q '^tailrace_group_lag_records{' metrics.txt && break
  sleep 0.25
done
names=$(cat "$deploy/dashboards/tailrace.json" "$deploy/compose/prometheus/alerts.yml" | grep -oE 'tailrace_[a-z_]+' | sort -u)
same "the dashboard asks for many metrics" yes "$([ "$(wc -w <<<"$names")" -ge 20 ] && echo yes)"
for name in $names; do
  if grep -qE "^$name(\{| )" metrics.txt; then pass "metric $name"; else fail "metric $name is not in /metrics"; fi
done
fetch /readyz >readyz.txt
holds "readyz says so" " 200 " readyz.txt
stop_broker
same "stopped" 0 $?

# The profile: io_uring in, and what a broker has no business with out.
profile=$deploy/docker/tailrace-seccomp.json
for call in io_uring_setup io_uring_enter io_uring_register; do holds "the profile allows $call" "\"$call\"" "$profile"; done
for call in mount ptrace bpf kexec_load init_module reboot setns unshare keyctl perf_event_open userfaultfd; do lacks "the profile leaves out $call" "\"$call\"" "$profile"; done
# ...and a broker really runs under it, on io_uring.
cat >under_profile <<SH
#!/usr/bin/env bash
# The leak checker of a sanitizer build would need ptrace, which the profile rightly leaves out.
export ASAN_OPTIONS=detect_leaks=0
[ "\$1" = server ] && exec "$seccomp_run" "$profile" "$t" "\$@"
exec "$t" "\$@"
SH
chmod +x under_profile
real=$tailrace tailrace=$work/under_profile
start_broker
tailrace=$real
"$t" topic create s -q >/dev/null
exits 0 "a broker works under the profile" bash -c 'seq 1 1000 | "$0" pub s -q && [ "$("$0" tail s -o raw -q | wc -l)" = 1000 ]' "$t"
fetch /metrics >metrics.txt
if "$seccomp_run" --probe-io-uring; then holds "and uses io_uring" 'name="io_uring"' metrics.txt; else echo "skip  io_uring is not available here"; fi
stop_broker
same "and stops" 0 $?
exits 1 "the profile bites: no new namespace" "$seccomp_run" "$profile" unshare -U true

# The image installs what the program links.
if command -v ldd >/dev/null && command -v dpkg >/dev/null; then
  for library in $(ldd "$t" | awk '/=> \// { print $3 }'); do
    package=$(dpkg -S "$(readlink -f "$library")" 2>/dev/null | head -n 1 | cut -d: -f1)
    case $package in
      libc6 | libgcc-s1 | libstdc++6 | '') ;;  # in every Debian image; '': not from a package
      *) if grep -qw -- "$package" "$deploy/docker/Dockerfile"; then pass "the image has $package"; else fail "the image lacks $package, for $library"; fi ;;
    esac
  done
fi
if command -v systemd-analyze >/dev/null; then
  exits 0 "systemd-analyze security, at most 2.0" systemd-analyze security --offline=true --threshold=20 "$deploy/systemd/tailrace.service"
  sed "s|/usr/bin/tailrace|$(readlink -f "$t")|" "$deploy/systemd/tailrace.service" >tailrace.service
  exits 0 "systemd-analyze verify" systemd-analyze verify ./tailrace.service
  empty "without complaints" "$work/err"
fi
if command -v python3 >/dev/null; then
  exits 0 "JSON parses" python3 -c 'import json, sys; [json.load(open(f)) for f in sys.argv[1:]]' "$profile" "$deploy/dashboards/tailrace.json"
  if python3 -c 'import yaml' 2>/dev/null; then
    exits 0 "YAML parses" bash -c 'find "$0" -name "*.y*ml" -print0 | xargs -0 python3 -c "import yaml, sys; [yaml.safe_load(open(f)) for f in sys.argv[1:]]"' "$deploy"
  fi
fi
finish
