#pragma once
/// The indexes of event streams as files: RocksDB behind a pool of threads of its own, under `shard-K/streams` of the data directory.
/// Thread   the shard's, whose loop is given; the library is called on the pool only.
#include <string>

#include "io_asio/loop.h"
#include "service/streams.h"

namespace tailrace::broker::server {

/// `loop` outlives what is answered. Errors: io_error.
[[nodiscard]] Task<Result<std::unique_ptr<service::StreamIndexes>>> open_stream_indexes(io_asio::Loop& loop, std::string data_directory, ShardIndex shard);

}  // namespace tailrace::broker::server
