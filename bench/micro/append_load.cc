#include "bench/micro/append_load.h"

namespace tailrace::bench {

using namespace broker;

namespace {

struct Load {
  io::Runtime& runtime;
  log::ShardLog& log;
  LoadPlan plan;
  Slice pattern;
  BatchHeader header;
  std::vector<log::PartitionPtr> partitions;
  std::uint64_t next = 0;
  LoadResult result;
  std::optional<Error> failure;
};

Task<void> one_place(Load* load) {
  while (load->next < load->plan.appends && !load->failure) {
    std::uint64_t n = load->next++;
    auto& partition = *load->partitions[n % load->partitions.size()];
    Slice batch = Slice::whole(Buffer::copy_of(load->pattern.bytes()));
    Result<log::Appended> appended = partition.append(batch, load->header, load->runtime.clock.wall());
    while (!appended && appended.error().code == Errc::no_credit) {
      co_await load->log.pressure().wait();
      appended = partition.append(batch, load->header, load->runtime.clock.wall());
    }
    if (!appended) {
      load->failure = appended.error();
      co_return;
    }
    auto committed = co_await partition.committed(appended->next_offset);
    if (!committed) {
      load->failure = committed.error();
      co_return;
    }
    load->result.checksum = load->result.checksum * 31 + static_cast<std::uint64_t>(appended->base_offset.value());
  }
}

}  // namespace

Task<Result<LoadResult>> append_load(io::Runtime& runtime, log::ShardLog& log, LoadPlan plan) {
  Load load{runtime, log, plan, make_batch(plan.records, plan.value_bytes), {}, {}, 0, {}, std::nullopt};
  TAILRACE_CO_TRY(load.header, read_batch_header(load.pattern.bytes(), limits::kMessageBytesCeiling));
  for (int p = 0; p < plan.partitions; ++p) {
    auto opened = co_await log.open_partition(partition_id(p), {});
    if (!opened && opened.error().code == Errc::no_such_partition) opened = co_await log.create(partition_id(p), {});
    if (!opened) co_return std::unexpected(opened.error());
    load.partitions.push_back(*opened);
  }
  Instant from = runtime.clock.now();
  TaskScope scope;
  for (int i = 0; i < plan.window; ++i) scope.spawn(one_place(&load));
  co_await scope.drain();
  if (load.failure) co_return std::unexpected(*load.failure);
  load.result.seconds = seconds(runtime.clock.now() - from);
  load.result.appends = plan.appends;
  load.result.bytes = plan.appends * load.pattern.length;
  co_return load.result;
}

}  // namespace tailrace::bench
