#pragma once
/// Figures of one shard, gathered on its own thread.
#include "http/metrics.h"
#include "server/shard_host.h"
#include "service/broker_service.h"

namespace tailrace::broker::server {

/// Thread   the shard's.
[[nodiscard]] http::ShardMetrics gather(ShardHost& shard, service::ShardService& service);
/// Processor time, memory and descriptors of this process. Any thread.
void gather_process(http::NodeMetrics& into);

}  // namespace tailrace::broker::server
