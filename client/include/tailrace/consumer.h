#pragma once
/// Reading a topic as a log.
///
/// A consumer reads all partitions of one topic, or those it names, from where it is told to start. The broker sends only
/// into the credit the consumer grants, so memory stays bounded however fast the topic is. When the connection is lost it
/// reconnects and goes on at the next offset: no record twice, none skipped.
///
///     auto consumer = client->consumer("orders", {.start = From::last(10)});
///     while (true) {
///       auto message = consumer->next(1s);
///       if (!message) { log(message.error().to_string()); break; }
///       if (*message) std::cout << (*message)->value_text() << '\n';
///       else if (consumer->finished()) break;       // only with `until`
///     }
///
/// Order holds within a partition, not between partitions. Remember Message::at() beside your own results and give it to
/// `starts` (plus one) next time; examples/idempotent_handler.cc shows it.
///
/// Threads  one at a time: calls that overlap on two threads are answered with `internal`, naming both threads. close()
///          may come from any thread and wakes a waiting next(), which then answers `closed`.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string_view>
#include <vector>

#include "tailrace/record.h"

namespace tailrace {
inline namespace v1 {

namespace detail {
class ConsumerCore;
}

/// What to do when an offset to read is no longer, or not yet, there.
enum class OutOfRange : std::uint8_t {
  error,     ///< offset_out_of_range, with at["partition"], at["log_start"], at["log_end"]; seek() goes on from there
  earliest,  ///< go on at the log's start
  latest,    ///< go on at the log's end
};

/// Overrides for one partition.
struct PartitionStart {
  std::int32_t partition = 0;
  From start{};
  std::optional<From> until{};
};

struct ConsumerOptions {
  std::vector<std::int32_t> partitions{};  ///< empty: all the topic has when opened
  From start = From::earliest();
  std::vector<PartitionStart> starts{};    ///< per partition; others use `start` and `until`
  /// Where to stop, exclusive: From::offset, From::time (the first record of that time or later is not read),
  /// From::latest (the end as it is when the consumer opens). None: follow for ever.
  std::optional<From> until{};
  OutOfRange out_of_range = OutOfRange::error;
  /// The window: what the broker may send before it is read here. Both bounds hold; a single larger batch still comes, alone.
  std::uint64_t credit_records = 64u << 10;
  std::size_t credit_bytes = 8u << 20;

  /// All problems, each with the option's name and what would be accepted.
  [[nodiscard]] std::vector<Error> validate() const;
};

/// Where a partition stands.
struct PartitionProgress {
  std::int32_t partition = 0;
  std::int64_t next_offset = 0;     ///< of the next message next() gives; -1: not known yet
  std::int64_t high_watermark = 0;  ///< end of what may be read, as last heard; -1: not known yet
  bool caught_up = false;           ///< everything below high_watermark was given to you
  bool finished = false;            ///< `until` is reached
  bool paused = false;
};

/// Cheap to copy; copies are the same consumer. The last copy's destruction is close(5s).
class Consumer {
 public:
  Consumer() = default;

  /// The next message of any partition; nothing when `wait` passed, or at once when finished(). Errors: offset_out_of_range
  /// (that partition stops until seek()), no_such_topic, corrupt (a batch does not match its checksum), closed.
  /// Loss of the broker is not an error: it waits and reconnects.
  Result<std::optional<Message>> next(Milliseconds wait);
  /// Up to `max` messages as soon as there is one; none when `wait` passed or when finished().
  Result<std::vector<Message>> next_batch(std::size_t max, Milliseconds wait);
  /// The same as handles, for coroutines and callbacks; one at a time. next_batch(max) answers an empty vector, and next()
  /// `closed`, when finished().
  Task<Message> next();
  Task<std::vector<Message>> next_batch(std::size_t max);

  /// Calls the handler for each message, on this thread, until it answers an error (which is returned), stop is requested,
  /// or everything up to `until` was handled. An exception from the handler becomes an `internal` error.
  Result<void> run(const std::function<Result<void>(const Message&)>& handler, std::stop_token stop = {});

  /// Moves all partitions; what was received and not yet given is dropped. Until-offsets stay as they were given.
  Result<void> seek(From to);
  /// Moves one partition: the next message of it is the one at position.offset.
  Result<void> seek(const Position& to);
  /// Reads [from, until) of all partitions once, then finished(). `until` as in ConsumerOptions.
  Result<void> replay(From from, From until);

  /// A paused partition gives nothing, and nothing received is lost. Empty: all partitions.
  Result<void> pause(std::span<const std::int32_t> partitions = {});
  Result<void> resume(std::span<const std::int32_t> partitions = {});

  [[nodiscard]] std::vector<PartitionProgress> positions() const;
  /// Everything below the high watermark, as last heard for every partition, was given to you.
  [[nodiscard]] bool caught_up() const;
  /// `until` is reached in every partition and every message before it was given to you.
  [[nodiscard]] bool finished() const;

  /// Stops receiving. Returns by the deadline; callable anywhere, also twice.
  Result<void> close(Milliseconds deadline = 5s);

  explicit Consumer(std::shared_ptr<detail::ConsumerCore> core) : core_{std::move(core)} {}

 private:
  std::shared_ptr<detail::ConsumerCore> core_{};
};

}  // namespace v1
}  // namespace tailrace
