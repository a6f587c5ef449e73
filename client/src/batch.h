#pragma once
/// Records on their way out: one batch of one partition, and those who want to know what becomes of it.
#include <cstdint>
#include <memory>
#include <vector>

#include "codec/batch_builder.h"
#include "src/callbacks.h"
#include "src/completion.h"
#include "tailrace/producer.h"

namespace tailrace::inline v1::detail {

/// Told about single records, at once, on the loop's thread: never user code.
class RecordSink {
 public:
  virtual ~RecordSink() = default;
  virtual void settle(std::uint32_t slot, const Result<Receipt>& result) = 0;
};

/// What became of a batch. Set once, then only read.
struct BatchOutcome {
  std::optional<Error> error{};
  std::string topic{};
  std::int32_t partition = 0;
  std::int64_t base_offset = -1;
  std::int64_t append_time = -1;  // ms; -1: the records' own times hold
  bool duplicate = false;
  std::vector<std::int64_t> times{};

  [[nodiscard]] Result<Receipt> of(std::uint32_t index) const;
};

/// One object for all handles of a batch: a handle is a reference and an index.
class BatchCompletion final : public Completion<Receipt> {
 public:
  explicit BatchCompletion(std::shared_ptr<Callbacks> callbacks) : callbacks_{std::move(callbacks)} {}
  [[nodiscard]] bool ready() const override { return ready_.load(std::memory_order_acquire); }
  bool wait(std::optional<TimePoint> deadline) const override;
  [[nodiscard]] Result<Receipt> result(std::uint32_t index) const override { return outcome_->of(index); }
  void when_ready(std::uint32_t index, Callback callback, bool direct) override;
  void settle(std::shared_ptr<const BatchOutcome> outcome);

 private:
  struct Waiting {
    std::uint32_t index;
    Callback callback;
  };
  std::shared_ptr<Callbacks> callbacks_;
  std::atomic<bool> ready_{false};
  std::shared_ptr<const BatchOutcome> outcome_{};  // before ready_
  mutable std::mutex mutex_{};
  mutable std::condition_variable changed_{};
  std::vector<Waiting> later_{};   // on the executor
  std::vector<Waiting> direct_{};
};

/// The handle of a record that is not in a batch yet.
class SingleReceipt final : public RecordSink {
 public:
  explicit SingleReceipt(std::shared_ptr<Callbacks> callbacks) : completion_{std::make_shared<Single<Receipt>>(std::move(callbacks))} {}
  void settle(std::uint32_t, const Result<Receipt>& result) override { completion_->complete(result); }
  [[nodiscard]] Task<Receipt> task() const { return Task<Receipt>{completion_}; }

 private:
  std::shared_ptr<Single<Receipt>> completion_;
};

/// Gathers the receipts of send_batch(). The first error stands for all.
class ManyReceipts final : public RecordSink {
 public:
  ManyReceipts(std::shared_ptr<Callbacks> callbacks, std::size_t count)
      : completion_{std::make_shared<Single<std::vector<Receipt>>>(std::move(callbacks))}, receipts_(count), left_{count} {}
  void settle(std::uint32_t slot, const Result<Receipt>& result) override;
  [[nodiscard]] Task<std::vector<Receipt>> task() const { return Task<std::vector<Receipt>>{completion_}; }

 private:
  std::shared_ptr<Single<std::vector<Receipt>>> completion_;
  std::mutex mutex_{};
  std::vector<Receipt> receipts_;
  std::size_t left_;
  bool any_stored_ = false;
  std::optional<Error> error_{};
};

/// Who wants to know about a record: nobody, a handle of the batch's own completion, a tag, or a sink.
struct Want {
  enum class Kind : std::uint8_t { nothing, handle, tag, sink };
  Kind kind = Kind::nothing;
  std::uint64_t tag = 0;
  std::uint32_t slot = 0;
  std::shared_ptr<RecordSink> sink{};
};

/// Filled by senders under the publisher's lock until it is taken; from then on the loop's.
struct OutgoingBatch {
  OutgoingBatch(broker::codec::BatchOptions options, std::uint64_t batch_number, TimePoint now, TimePoint until)
      : builder{options}, number{batch_number}, created{now}, deadline{until} {}

  struct Tagged {
    std::uint32_t index;
    std::uint64_t tag;
  };
  struct Forward {
    std::uint32_t index;
    std::uint32_t slot;
    std::shared_ptr<RecordSink> sink;
  };

  broker::codec::BatchBuilder builder;
  std::vector<std::int64_t> times{};
  std::shared_ptr<BatchCompletion> completion{};
  std::vector<Tagged> tags{};
  std::vector<Forward> forwards{};
  std::size_t charged = 0;    // of the client's memory budget
  std::uint64_t number;       // of the oldest record inside, in the publisher's order
  TimePoint created;
  TimePoint deadline;
  std::optional<std::int64_t> expected_end{};

  // The loop's, once taken.
  broker::Slice encoded{};
  std::int32_t sequence = -1;
  bool sent = false;          // has a sequence; kept while it may be stored
  bool maybe_stored = false;  // an attempt ended without an answer
  std::string last_refusal{};

  [[nodiscard]] std::uint32_t count() const { return static_cast<std::uint32_t>(times.size()); }
  [[nodiscard]] std::size_t bytes() const { return encoded.length > 0 ? encoded.length : builder.bytes(); }
};
using BatchPtr = std::unique_ptr<OutgoingBatch>;

}  // namespace tailrace::inline v1::detail
