#!/bin/sh
# links_neither.sh BINARY: fails when the program needs liburing, or has a symbol of liburing or Asio.
set -eu
binary=$1
libraries=$(ldd "$binary")
if printf '%s\n' "$libraries" | grep -q 'liburing'; then
  echo "$binary needs liburing:"; printf '%s\n' "$libraries"; exit 1
fi
symbols=$(nm -C "$binary")
[ -n "$symbols" ] || { echo "$binary has no symbols to look at"; exit 1; }
# The check must be able to see what it looks for.
printf '%s\n' "$symbols" | grep -q 'tailrace::broker::log::' || { echo "$binary does not hold the log"; exit 1; }
printf '%s\n' "$symbols" | grep -q 'tailrace::broker::service::' || { echo "$binary does not hold the services"; exit 1; }
if found=$(printf '%s\n' "$symbols" | grep -E '\bio_uring_|\basio::' | head -n 5) && [ -n "$found" ]; then
  echo "$binary holds an event loop of production:"; printf '%s\n' "$found"; exit 1
fi
echo "neither liburing nor Asio"
