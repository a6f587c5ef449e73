#pragma once
/// Of what is committed in one partition: where streams end, where versions lie. The log is the truth; this can be built anew from it.
/// Spec     docs/event-store.md, "The index".
/// Shard    the partition's; calls may overlap, but apply() and clear() are one at a time.
/// Errors   of all: io_error, corrupt (then it is cleared and filled again), closed.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/task.h"
#include "stream/ledger.h"

namespace tailrace::broker::stream {

/// A batch of a stream.
struct Place {
  Version first = 0;
  std::int32_t count = 0;
  Offset offset{};  // its base offset
  friend bool operator==(const Place&, const Place&) = default;
};
struct Listed {
  std::string stream{};
  Head head{};
  friend bool operator==(const Listed&, const Listed&) = default;
};

class StreamIndex {
 public:
  virtual ~StreamIndex() = default;
  /// All below is in it; 0 where nothing ever was.
  virtual Task<Result<Offset>> reached() = 0;
  /// A head that never had an event for a stream that is not known.
  virtual Task<Result<Head>> head(std::string stream) = 0;
  /// Batches that hold versions at or behind `from` (backwards: at or below it), in order of reading, at most `max`.
  virtual Task<Result<std::vector<Place>>> places(std::string stream, Version from, bool backwards, std::size_t max) = 0;
  /// Streams that begin with `prefix`, in order of their bytes, behind `after` (empty: from the first), at most `max`.
  virtual Task<Result<std::vector<Listed>>> list(std::string prefix, std::string after, std::size_t max) = 0;
  /// Takes `updates`, and that all below `reached` is in it, in one step: a crash leaves all of it or nothing, and all before it.
  virtual Task<Result<void>> apply(std::vector<Ledger::Update> updates, Offset reached) = 0;
  /// Forgets everything.
  virtual Task<Result<void>> clear() = 0;
};

}  // namespace tailrace::broker::stream
