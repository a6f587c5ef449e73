#pragma once
/// A partition of event streams as its owner runs it: a ledger that judges appends, an index of what is committed, the log below both.
///
/// Order    appends and truncations pass the slot's door, as produces do; only the one inside judges. A stream whose head only the index knows is
///          looked up outside the door: others go on, appends to that stream wait behind it.
/// Answers  leave when all that they rest on is committed and this replica is known to lead, refusals too.
/// State    a function of the log: filled at the first use of each leadership from where the index has got to, up to the end. What is committed goes
///          to the index in the background. An index that is ahead of its log, behind its start, or damaged, is cleared and filled anew.
/// Shard    the partition's. Calls hold the slot.
/// Spec     docs/event-store.md
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/notifier.h"
#include "service/shard_core.h"
#include "service/streams.h"
#include "stream/ledger.h"

namespace tailrace::broker::service {

class StreamPartition {
 public:
  /// `core` and `slot` outlive it.
  StreamPartition(ShardCore& core, PartitionSlot& slot, std::unique_ptr<stream::StreamIndex> index);
  StreamPartition(const StreamPartition&) = delete;
  StreamPartition& operator=(const StreamPartition&) = delete;
  ~StreamPartition();

  /// `ids`: of its events. Errors: wrong_version (facts actual_version, -1 for none, and actual_time_ms), no_credit, and those of a produce.
  [[nodiscard]] Task<Answer<StreamAppendReply>> append(StreamAppendRequest& request, const std::vector<std::string>& ids);
  /// The head behind it. Errors: no_such_stream, invalid_argument (before is past the end), and those of a produce.
  [[nodiscard]] Task<Answer<stream::Head>> truncate(const StreamTruncateRequest& request);
  /// Errors: no_such_stream, invalid_argument (from is past the end), not_leader, corrupt, io_error.
  [[nodiscard]] Task<Answer<StreamReadReply>> read(const StreamReadRequest& request);
  /// Errors: no_such_stream, not_leader, io_error.
  [[nodiscard]] Task<Answer<stream::Head>> describe(const std::string& stream);
  [[nodiscard]] Task<Answer<std::vector<stream::Listed>>> list(const StreamListRequest& request);
  /// Its topic is gone, and nobody uses it.
  [[nodiscard]] Task<void> forget();

 private:
  using LedgerPointer = std::shared_ptr<stream::Ledger>;
  struct Cold {
    explicit Cold(Executor& executor) : changed{executor} {}
    std::size_t waiting = 0;
    bool done = false;
    std::optional<Error> error{};
    Notifier changed;
  };

  [[nodiscard]] Answer<void> admit() const;
  [[nodiscard]] bool current() const;
  /// Inside the door: the ledger is there, and of this leadership.
  [[nodiscard]] Task<Answer<void>> prepare();
  [[nodiscard]] Task<Answer<void>> fill();
  [[nodiscard]] Task<Result<LedgerPointer>> filled(Offset end);
  /// The same from outside the door, for reads.
  [[nodiscard]] Task<Answer<LedgerPointer>> ready();
  [[nodiscard]] Task<Answer<void>> look_up(LedgerPointer ledger, const std::string& stream);
  /// One batch of one stream, judged and appended. `judged.kind` says what came of it; of append: `appended`, and the ledger has it.
  struct Judged {
    stream::Judgement judgement{};
    log::Appended appended{};
  };
  template <class Make>
  [[nodiscard]] Task<Answer<Judged>> judge(std::string stream, stream::Expected expected, std::int32_t count, std::optional<Instant> deadline, Make make);
  [[nodiscard]] Task<Answer<void>> rests_on(Offset end);
  [[nodiscard]] Task<Answer<bool>> stored_before(const std::string& stream, stream::Version first, const std::vector<std::string>& ids, Offset& at);
  [[nodiscard]] Task<Answer<stream::Head>> committed_head(const std::string& stream);
  /// Batches of the index and of the ledger, as one.
  [[nodiscard]] Task<Answer<std::vector<stream::Place>>> places(const std::string& stream, stream::Version from, bool backwards, std::size_t most);
  [[nodiscard]] Task<Answer<Slice>> batch_at(Offset offset);
  [[nodiscard]] Task<Result<Offset>> store(LedgerPointer ledger, Offset committed);
  void kick();
  [[nodiscard]] Task<void> index_task();
  Refusal index_refusal(Error error);

  ShardCore& core_;
  PartitionSlot& slot_;
  std::unique_ptr<stream::StreamIndex> index_;
  LedgerPointer ledger_{};
  LeaderEpoch term_{};          // of ledger_
  bool index_bad_ = false;      // to be cleared by the next fill
  bool indexing_ = false;       // index_task() runs
  Notifier indexed_;            // it ended
  std::unordered_map<std::string, std::shared_ptr<Cold>> cold_{};
};

}  // namespace tailrace::broker::service
