#!/usr/bin/env bash
# Structure checks that a compiler does not make. Prints each finding; exits 1 if there is any.
set -uo pipefail
cd "$(dirname "$0")/../.."
bad=0
found() { echo "tidy: $*"; bad=1; }

# 1. Room arrows, by include. The link arrows are checked by cmake/rooms.cmake, whose table this reads; a header-only use would
# slip past it. Beside broker/, the parts of client/ are held to their own lines.
declare -A uses
while read -r room list; do [ -z "$room" ] || uses[$room]=" $list "; done < <(cmake -DTAILRACE_PRINT_ROOMS=1 -P cmake/rooms.cmake 2>&1 | tr ';' ' ')
[ -n "${uses[log]-}" ] || found "cmake/rooms.cmake prints no table"
while IFS=: read -r file include; do
  case $file in
    broker/*) room=${file#broker/}; room=${room%%/*} ;;
    client/cli/*) room=cli ;;
    client/testing/*) room=client_testing ;;
    *) room=client ;;
  esac
  target=${include%%/*}
  [ "$room" != server ] || continue
  [ "$target" != "$room" ] && [ -d "broker/$target" ] || continue
  case "${uses[$room]-}" in *" $target "*) ;; *) found "$file includes $include: '$room' may not use '$target' (cmake/rooms.cmake)" ;; esac
done < <(grep -rHoE '^#include "[a-z_]+/[^"]+"' broker client --include=*.h --include=*.cc | sed -E 's/#include "([^"]+)"/\1/')

# 2. Reactors stay in their rooms, clocks behind their seam.
grep -rnE '#include <(asio|liburing)' broker client --include=*.h --include=*.cc | grep -vE '^(broker/(io_asio|io_uring|server)|client/src/net)/' |
  while read -r hit; do echo "tidy: a reactor outside its room: $hit"; done | grep . && bad=1
grep -rnE 'chrono::(system|steady)_clock::now|random_device' broker/{log,service,raft,cluster,flow,codec,model,native} --include=*.h --include=*.cc 2>/dev/null |
  while read -r hit; do echo "tidy: time or chance that does not come through io::Runtime: $hit"; done | grep . && bad=1

# 3. The co_await forms g++ 12 miscompiles, in what SDK users see.
grep -rnE 'co_await[^;]*(\[[&=a-z][^]]*\]|[A-Z][A-Za-z]*\{)' client/include client/examples 2>/dev/null |
  while read -r hit; do echo "tidy: a capturing lambda or aggregate inside co_await (g++ 12): $hit"; done | grep . && bad=1

# 4. Stray markers.
git grep -nIE '\b(TODO|FIXME|XXX|HACK)\b|^(<<<<<<<|>>>>>>>) ' -- . ':!tests/tidy/tidy.sh' | while read -r hit; do echo "tidy: stray marker: $hit"; done | grep . && bad=1

# 5. Files that no build knows.
lists=$(cat $(git ls-files '*CMakeLists.txt' '*.cmake'))
while read -r file; do
  name=${file##*/}
  grep -qF "$name" <<<"$lists" || grep -rqF "/$name\"" broker client tests bench proto --include=*.h --include=*.cc || found "$file is in no CMakeLists.txt and included nowhere"
done < <(git ls-files 'broker/*.cc' 'broker/*.h' 'client/*.cc' 'client/*.h' 'tests/*.cc' 'tests/*.h' 'bench/*.cc' 'bench/*.h' 'proto/*.cc' 'proto/*.h' | grep -vE '^(client/include|tests/install)/')

[ $bad -eq 0 ] && echo "tidy: nothing found"
exit $bad
