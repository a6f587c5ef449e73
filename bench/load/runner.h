#pragma once
/// Runs one load against a broker through the SDK.
///
/// Open loop  `rate` records per second are due whatever the broker does. A record's latency counts from the moment it was
///            due to its acknowledgement (pub) or its arrival at a consumer (e2e), so waiting for room in the window, a
///            stall, or a sender that fell behind all count. `send_delay` tells how late sends were, to judge the client.
/// --max      rate 0: as fast as acknowledgements make room; latency then counts from the send and holds at that load only.
/// Question   how long does a user's record take at this load? It does not measure the broker's CPU, nor a network.
/// Threads    one sender and one connection per producer; the call blocks.
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bench/load/report.h"
#include "tailrace/client.h"

namespace tailrace::load {

struct LoadOptions {
  std::vector<std::string> servers;
  std::string topic;
  double rate = 0;                          ///< records per second, all producers together; 0: --max
  std::chrono::nanoseconds duration{};      ///< measured
  std::chrono::nanoseconds warmup{};        ///< before it, sent at the same rate and not counted
  std::uint64_t records = 0;                ///< stop after this many measured records; 0: by duration alone
  std::size_t record_bytes = 1024;          ///< of the value, at least 24
  int producers = 1;
  std::uint64_t keys = 0;                   ///< 0: no keys
  Compression compression = Compression::none;
  std::chrono::milliseconds timeout{30'000};
  std::function<bool()> stop = [] { return false; };                     ///< asked often: Ctrl-C
  std::function<void(std::uint64_t, std::uint64_t)> progress = [](std::uint64_t, std::uint64_t) {};  ///< done, of
};

struct Measured {
  RunResult result;
  std::string durability;  ///< as the broker told the producer
};

[[nodiscard]] Result<Measured> run_pub(const LoadOptions& options);
[[nodiscard]] Result<Measured> run_e2e(const LoadOptions& options);
/// Publishes `records` first (not measured) if the topic holds fewer, then reads all of it from the start to the end.
[[nodiscard]] Result<Measured> run_sub(const LoadOptions& options);

}  // namespace tailrace::load
