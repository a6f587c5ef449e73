// B5: how near does reading the hot tail into a socket come to sending a static buffer?
// Unit: bytes/s. Reference of the same run: one static buffer of the fetch's size written to the same receiver, which throws all
// bytes away, through the same loop and stream. Not measured: the native protocol's framing (20 bytes and a small message a fetch).
#include <arpa/inet.h>
#include <benchmark/benchmark.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <thread>
#include <unistd.h>

#include "bench/micro/append_load.h"
#include "io_asio/loop.h"
#include "io_asio/tcp.h"

namespace tailrace::bench {
namespace {

using namespace broker;

/// Connects and discards until the other side closes. MSG_TRUNC drops the bytes in the kernel (tcp(7)).
void discard(std::uint16_t port) {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0) {
    while (::recv(fd, nullptr, 1 << 20, MSG_TRUNC) > 0) {
    }
  }
  ::close(fd);
}

Task<Result<void>> send_parts(io::Stream& stream, const std::vector<iovec>& parts) {
  std::int64_t n = co_await io::FileOp{[&](io::Operation& op) { stream.write(op, parts); }};
  if (n < 0) co_return std::unexpected(io::error_of(n, "send"));
  co_return Result<void>{};
}

void b5(benchmark::State& state) {
  auto fetch = static_cast<std::size_t>(state.range(0)) * 1024;
  std::uint64_t total = smoke() ? 64ull << 20 : 4096ull << 20;
  for (auto _ : state) {
    Rig rig;
    double ours = 0, fixed = 0;
    std::uint64_t bytes = 0, records = 0;
    rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
      TAILRACE_CO_TRY(auto log, co_await open_log(runtime, rig.folder(), {.hot_tail_bytes = 128ull << 20}));
      LoadPlan plan{.partitions = 1, .window = 64, .appends = smoke() ? 256u : 4'096u, .records = 15, .value_bytes = 1024};
      TAILRACE_CO_TRY(LoadResult load, co_await append_load(runtime, *log, plan));
      benchmark::DoNotOptimize(load.checksum);
      TAILRACE_CO_TRY(auto partition, co_await log->open_partition(partition_id(0), {}));
      TAILRACE_CO_TRY(auto listener, io_asio::listen(rig.loop(), "127.0.0.1", 0));
      Buffer buffer = Buffer::allocate(fetch);
      std::memset(buffer.data(), 0x5a, buffer.size());
      for (int turn = 0; turn < 4; ++turn) {  // in turn, so that a disturbance falls on both
        std::jthread receiver{discard, listener->port()};
        TAILRACE_CO_TRY(auto stream, co_await listener->accept());
        Instant from = runtime.clock.now();
        std::vector<iovec> parts;
        std::uint64_t sent = 0;
        if (turn % 2 == 0) {
          parts.push_back({buffer.data(), buffer.size()});
          while (sent < total / 2) {
            TAILRACE_CO_TRY_VOID(co_await send_parts(*stream, parts));
            sent += fetch;
          }
          fixed += seconds(runtime.clock.now() - from) / (static_cast<double>(sent) / static_cast<double>(total / 2));
        } else {
          Offset at = partition->log_start(), end = partition->high_watermark();
          while (sent < total / 2) {
            TAILRACE_CO_TRY(auto read, co_await partition->read(at, {.bytes_max = fetch}));
            parts.clear();
            for (const auto& batch : read.batches) {
              parts.push_back({batch.mutable_bytes().data(), batch.length});
              sent += batch.length;
            }
            records += static_cast<std::uint64_t>(read.next - at);
            at = read.next < end ? read.next : partition->log_start();
            TAILRACE_CO_TRY_VOID(co_await send_parts(*stream, parts));
          }
          bytes += sent;
          ours += seconds(runtime.clock.now() - from) / (static_cast<double>(sent) / static_cast<double>(total / 2));
        }
        stream->shut();
      }
      listener->close();
      if (log->stats().cold_reads != 0) co_return fail(Errc::internal, "the tail was not hot: this measured the disk");
      partition.reset();
      co_await log->close();
      co_return Result<void>{};
    });
    state.SetIterationTime(ours);
    state.counters["MB/s"] = static_cast<double>(total) / ours / 1e6;
    state.counters["static_MB/s"] = static_cast<double>(total) / fixed / 1e6;
    state.counters["of_static"] = fixed / ours;
    state.counters["records"] = static_cast<double>(records);
    state.counters["bytes"] = static_cast<double>(bytes);
  }
}
BENCHMARK(b5)->Name("B5_hot_fetch/KiB")->Arg(64)->Arg(256)->Arg(1024)->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tailrace::bench

int main(int argc, char** argv) { return tailrace::bench::bench_main(argc, argv); }
