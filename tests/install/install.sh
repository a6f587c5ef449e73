#!/usr/bin/env bash
# install.sh BUILD_DIR: the SDK as a user meets it. Installs it, then builds tests/install/consumer through find_package and through
# pkg-config, with clang and with g++, shared and static, and runs what was built against the fake broker.
set -euo pipefail
build=$1
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/tailrace-install.XXXXXX")
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix
cmake --install "$build" --prefix "$prefix" --component sdk >"$work/install.log"
lib=$(dirname "$(find "$prefix" -name libtailrace.a)")
export PKG_CONFIG_PATH=$lib/pkgconfig

# Nothing but the standard library in what users include.
if grep -rhoE '#include [<"][^>"]+[>"]' "$prefix/include" | grep -E '[./]' | grep -vE '"tailrace/[a-z_]+\.h"'; then
  echo "FAILED: a public header includes something foreign"; exit 1
fi
# And nothing but our own names in what users link.
foreign=$(nm -DC --defined-only "$lib/libtailrace.so" | grep -E ' [TW] ' | grep -E 'asio::|google::protobuf|tailrace::broker::|tailrace::proto::' | grep -v 'tailrace::v1::' | head -3 || true)
[ -z "$foreign" ] || { echo "FAILED: libtailrace.so shows foreign names: $foreign"; exit 1; }

for compiler in clang++-19 g++; do
  out=$work/$compiler
  cmake -S "$here/consumer" -B "$out" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release \
    -DEXAMPLES="$top/client/examples" >"$work/configure.log" || { cat "$work/configure.log"; exit 1; }
  cmake --build "$out" >"$work/build.log" || { cat "$work/build.log"; exit 1; }
  # shellcheck disable=SC2046
  $compiler -std=c++23 "$here/consumer/app.cc" -o "$out/app_pkg" $(pkg-config --cflags --libs tailrace) -Wl,-rpath,"$lib"
  # shellcheck disable=SC2046
  $compiler -std=c++23 "$here/consumer/app.cc" -o "$out/app_pkg_static" $(pkg-config --cflags tailrace) "$lib/libtailrace.a" \
    $(pkg-config --static --libs tailrace | sed 's/-ltailrace//')
  state=$work/state-$compiler
  "$out/with_fake" "$out/app_shared {}" "$out/app_static {}" "$out/app_pkg {}" "$out/app_pkg_static {}" \
    "$out/publish {} orders 90" "$out/tail {} orders >$work/tail.txt" "$out/replay {} orders 0 2 9" \
    "! $out/idempotent_handler {} orders $state 37" "$out/idempotent_handler {} orders $state >$work/first.txt" \
    "$out/idempotent_handler {} orders $state >$work/second.txt"
  # 16 records of the four apps, 90 of the example; 100 + 101 + ... + 189 cents, crash or not, once or twice.
  [ "$(wc -l <"$work/tail.txt")" -eq 106 ] || { echo "FAILED: tail printed $(wc -l <"$work/tail.txt") lines"; exit 1; }
  for run in first second; do
    grep -qx 'records 106 cents 13005' "$work/$run.txt" || { echo "FAILED: idempotent handler: $(cat "$work/$run.txt")"; exit 1; }
  done
  echo "ok: $compiler"
done
