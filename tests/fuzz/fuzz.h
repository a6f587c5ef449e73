#pragma once
/// What a fuzz target's source defines. libFuzzer calls LLVMFuzzerTestOneInput with bytes it made up; the replay program
/// calls it with each file of the corpus in the tree, and can write the seeds that the corpus began with.
///
/// A target judges by what the sanitizers see (touch every byte a decoder hands out: consume()) and by FUZZ_ASSERT for
/// facts that must hold whatever the input. Checks of the code under test stop the process too.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "base/bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace tailrace::fuzz {

/// File name to content. Deterministic: no clock, no chance beyond a fixed seed. Small: a few KiB each, at most 30.
std::map<std::string, std::string> seeds();

/// Reads every byte, so that a view beyond its block is seen by the sanitizer.
inline void consume(broker::Bytes bytes) {
  unsigned sum = 0;
  for (std::byte b : bytes) sum += std::to_integer<unsigned>(b);
  volatile unsigned sink = sum;
  static_cast<void>(sink);
}
inline void consume(std::string_view text) { consume(broker::as_bytes(text)); }

inline broker::Bytes input(const std::uint8_t* data, std::size_t size) { return {reinterpret_cast<const std::byte*>(data), size}; }

}  // namespace tailrace::fuzz

#define FUZZ_ASSERT(condition)                                                              \
  do {                                                                                      \
    if (!(condition)) {                                                                     \
      std::fprintf(stderr, "%s:%d: fuzz assertion failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                         \
    }                                                                                       \
  } while (false)
