#pragma once
/// Publishing.
///
/// A producer gathers records into batches, one open batch per partition, and keeps up to five batches of a partition in
/// flight. It is idempotent: when a connection is lost it reconnects and resends what was not acknowledged, in order and
/// with the same sequence numbers, and the broker stores nothing twice. Records of one partition are stored in the order of
/// their send() calls; with keys, so are the records of one key.
///
///     auto client = Client::open({.servers = {"127.0.0.1:7070"}});
///     auto producer = client->producer();
///     auto receipt = producer->send({.topic = "orders", .key = "alice", .value = "hello"}).get();
///
/// What can happen to a record: exactly one of
///   receipt           stored, durably
///   timeout           `delivery_timeout` passed and it was never sent: certainly not stored
///   outcome_unknown   `delivery_timeout` passed, or the producer was closed, and it was sent at least once: perhaps stored
///   another error     the broker refused it (too_large, no_such_topic, wrong_version...): certainly not stored
/// A refused batch does not hold up the ones after it, nor does it change their order. After outcome_unknown everything of
/// that partition that was sent and not answered has the same outcome, and what follows goes on under a new producer id.
///
/// Memory is bounded by ClientOptions::memory_limit, shared by all producers of the client. At the limit, and when the
/// broker's window leaves no room for what was sent before, send() waits or answers `queue_full`, as `when_full` says.
/// Once a million results wait for your callbacks, send() waits (or answers) likewise, except inside a callback.
/// A topic that grows is noticed within 30 s, sooner when a record names a partition that is not known.
/// Threads  all members may be called from any thread, and inside callbacks.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tailrace/record.h"

namespace tailrace {
inline namespace v1 {

namespace detail {
class ProducerCore;
}

/// Chooses a partition in [0, count). Called for records without an explicit partition, inside send(), on the caller's
/// thread. A result outside the range is an invalid_argument error of that record.
using Partitioner = std::function<std::uint32_t(const RecordView&, std::uint32_t count)>;
/// Keyed records land where a Java Kafka client would put them; records without a key stick to a partition per batch.
[[nodiscard]] Partitioner murmur2();
/// Ignores keys: every record sticks to a partition until its batch is full.
[[nodiscard]] Partitioner sticky();

enum class Compression : std::uint8_t { none, lz4, zstd };
enum class WhenFull : std::uint8_t { block, fail };
/// What an acknowledgement of a topic means. A topic's key: the producer is told, it does not choose.
enum class Durability : std::uint8_t { quorum, leader, relaxed };

/// Fate of one record given to Producer::post(), in the order of acknowledgement.
struct Delivered {
  std::uint64_t tag = 0;          ///< what post() was given
  std::string_view topic{};
  std::int32_t partition = 0;
  std::int64_t offset = -1;       ///< -1 with an error
  Instant time{};
  bool duplicate = false;
  const Error* error = nullptr;   ///< null: stored. Valid during the call only
};

struct ProducerOptions {
  bool idempotent = true;
  Milliseconds linger{0};  ///< 0: send when nothing of the partition is in flight, batch what gathers meanwhile
  /// A batch is sent at this encoded size; a single larger record still goes alone. With linger 0 a large value costs no latency:
  /// it only bounds what gathers while the partition has five batches in flight, and so the throughput under load.
  std::size_t batch_bytes = 256u << 10;
  Milliseconds delivery_timeout{30s};   ///< from send() to an answer, retries included
  Compression compression = Compression::none;
  Partitioner by{};                     ///< default: murmur2()
  WhenFull when_full = WhenFull::block; ///< block: wait for room, at most delivery_timeout, then queue_full
  /// Results of post(), a batch at a time, on the client's executor.
  std::function<void(std::span<const Delivered>)> on_delivered{};

  /// All problems, each with the option's name and what would be accepted.
  [[nodiscard]] std::vector<Error> validate() const;
};

/// What was left when the deadline of close() came.
struct CloseReport {
  std::uint64_t undelivered = 0;  ///< records never sent: certainly not stored
  std::uint64_t unknown = 0;      ///< records sent and not answered: perhaps stored
  bool finished = true;           ///< false: closing goes on in the background (close() was called inside a callback)
};

/// A publisher for any number of topics. Cheap to copy; the last copy's destruction is close(5s).
class Producer {
 public:
  Producer() = default;

  /// Appends the record to its partition's batch. The handle's errors: see the top of this file; also queue_full
  /// (when_full), invalid_argument (topic, partition), closed.
  Task<Receipt> send(const RecordView& record);
  Task<Receipt> send(const Record& record) { return send(RecordView{record}); }
  /// Never blocks: queue_full, and a topic not known yet for which the memory to wait is not there, come back at once.
  Result<Task<Receipt>> try_send(const RecordView& record);
  /// One handle for all; receipts in the order of the records. The first error stands for all; `maybe_applied` then says
  /// whether any of them may be stored.
  Task<std::vector<Receipt>> send_batch(std::span<const Record> records);
  /// The cheapest way: no handle. The result goes to ProducerOptions::on_delivered with `tag`.
  Result<void> post(const RecordView& record, std::uint64_t tag);
  /// Publishes the records as one batch of one partition, only if that partition's log ends exactly at `end_offset`.
  /// Errors: wrong_version, with at["actual_end_offset"]. Do not mix with other sends to the same partition.
  Task<std::vector<Receipt>> send_if_end(std::string_view topic, std::int32_t partition, std::int64_t end_offset,
                                         std::span<const Record> records);

  /// Sends everything that gathers now and waits for all answers. Errors: timeout.
  Result<void> flush(Milliseconds deadline = 10s);
  /// Waits for what is under way, at most `deadline`, then gives every record left its error. Returns by the deadline, also
  /// inside a callback (then the closing goes on in the background), when called twice, and when no broker answers.
  Result<CloseReport> close(Milliseconds deadline = 10s);

  /// What an acknowledgement of this topic means, once its stream was opened (with the first record sent).
  [[nodiscard]] std::optional<Durability> durability(std::string_view topic) const;
  /// Records accepted and not answered yet.
  [[nodiscard]] std::uint64_t pending() const;

  explicit Producer(std::shared_ptr<detail::ProducerCore> core) : core_{std::move(core)} {}

 private:
  std::shared_ptr<detail::ProducerCore> core_{};
};

}  // namespace v1
}  // namespace tailrace
