#pragma once
/// Reading topics together with others: the members of a group share the partitions, and the broker remembers how far each was worked through.
///
///     auto consumer = client->group_consumer("billing", {"orders"});
///     auto ended = consumer->run([](const Message& message) -> Result<void> { return charge(message); }, stop);
///
/// A story: two processes run this. Each reads half of the partitions. One is stopped for an upgrade: it stores its offsets and leaves, and the other one reads
/// everything, from exactly where it was left. One is killed: after its session timeout the other goes on at the offsets that were stored last,
/// so the records since then are handled twice. At least once is the promise; make handlers idempotent (examples/idempotent_handler.cc).
///
/// Alive    heartbeats are sent by the client's own thread: a handler may take as long as it likes and its process stays a member. What it reads
///          is given to another member only after it called next() again (or left, or was silent).
/// Commit   with after_processing, a message counts as processed when next() is called again (or the handler of run() returned without an error);
///          offsets are stored every commit_interval, when partitions go, and by close().
/// Threads  any; calls wait for each other, and close() wakes a waiting next(), which then answers `closed`. close() may be called in any callback.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "tailrace/consumer.h"

namespace tailrace {
inline namespace v1 {

namespace detail {
class GroupReader;
}

enum class CommitMode : std::uint8_t {
  after_processing,  ///< see above
  manual,            ///< only commit() stores offsets
};
/// How the broker shares partitions out. Counts for a group without members; others keep what they have.
enum class Assignor : std::uint8_t {
  sticky,  ///< even, and moves as little as that needs
  range,   ///< neighbours to one member: topics with the same keys meet
};

struct GroupOptions {
  /// Where to begin in a partition of which the group stored nothing.
  From start = From::earliest();
  CommitMode commit = CommitMode::after_processing;
  Milliseconds commit_interval{1'000};
  Milliseconds session_timeout{10'000};  ///< silent for so long, it is taken for dead; 1 s to 30 min
  /// A name that outlives the process: whoever joins with it takes the place of the one before, and nothing moves. Empty: none.
  std::string instance{};
  Assignor assignor = Assignor::sticky;
  /// Where the group goes on if a stored offset is no longer in the log. Counts as `assignor` does.
  OutOfRange out_of_range = OutOfRange::earliest;
  std::uint64_t credit_records = 64u << 10;  ///< of each topic; see ConsumerOptions
  std::size_t credit_bytes = 8u << 20;
  /// Partitions came, each with the offset of the next message; partitions went, each with the offset that was stored (-1: none). On the thread that calls next().
  std::function<void(std::span<const Position>)> on_assigned{};
  std::function<void(std::span<const Position>)> on_revoked{};

  [[nodiscard]] std::vector<Error> validate() const;
};

/// Cheap to copy; copies are the same member. The last copy's destruction is close(5s).
class GroupConsumer {
 public:
  GroupConsumer() = default;

  /// The next message; nothing when `wait` passed. Errors: offset_out_of_range, corrupt (seek() goes on), no_such_topic, unauthorized,
  /// invalid_argument (the broker refuses the group), closed. Loss of the broker is not an error, and neither is loss of membership: it joins again.
  Result<std::optional<Message>> next(Milliseconds wait);
  Result<std::vector<Message>> next_batch(std::size_t max, Milliseconds wait);
  /// Calls the handler for each message until it answers an error (which is returned; what was handled before is stored, this message is not), or
  /// stop is requested. Offsets are stored before it returns.
  Result<void> run(const std::function<Result<void>(const Message&)>& handler, std::stop_token stop = {});

  /// Stores the offsets behind everything that next() gave. Errors: unknown_member (its partitions went to others), timeout, closed, as the broker says.
  Result<void> commit();
  /// Stores these offsets: each of the next message to read.
  Result<void> commit(std::span<const Position> offsets);

  /// Moves all partitions that this member reads now.
  Result<void> seek(From to);
  Result<void> seek(const Position& to);
  /// Of what this member reads now; a paused partition gives nothing. Empty: all.
  Result<void> pause(std::span<const Position> partitions = {});
  Result<void> resume(std::span<const Position> partitions = {});

  /// What this member reads, each with the offset of the next message.
  [[nodiscard]] std::vector<Position> assignment() const;
  [[nodiscard]] std::string member_id() const;  ///< empty: not a member now
  /// Everything there was in its partitions, as last heard, was given; and it is a member.
  [[nodiscard]] bool caught_up() const;

  /// Stores offsets (after_processing), leaves the group, stops receiving. Returns by the deadline. Errors: those of the last commit.
  Result<void> close(Milliseconds deadline = 5s);

  explicit GroupConsumer(std::shared_ptr<detail::GroupReader> reader) : reader_{std::move(reader)} {}

 private:
  std::shared_ptr<detail::GroupReader> reader_{};
};

// ---- what an operator asks (Admin) -----------------------------------------------------------------------------------------------------------

enum class GroupState : std::uint8_t { empty, moving, stable };

struct GroupSummary {
  std::string group{};
  GroupState state = GroupState::empty;
  std::uint32_t members = 0;
  std::vector<std::string> topics{};
};
struct GroupMember {
  std::string member{};
  std::string instance{};
  std::vector<Position> partitions{};  ///< that it may be reading; offsets are not told here
  std::vector<Position> target{};      ///< that it will read
  Milliseconds session_timeout{};
  Milliseconds silent_after{};         ///< if it says nothing for so long, it is gone
};
/// -1, or nothing: not known.
struct GroupPartition {
  std::string topic{};
  std::int32_t partition = 0;
  std::string member{};                ///< who reads it; empty: nobody
  std::int64_t committed = -1;
  std::optional<Instant> committed_time{};
  std::string metadata{};
  std::int64_t log_start = -1;
  std::int64_t high_watermark = -1;
  std::int64_t lag = -1;               ///< records not read yet
  std::optional<Milliseconds> behind{};  ///< age of the oldest of them
};
struct GroupDescription {
  std::string group{};
  GroupState state = GroupState::empty;
  std::int64_t generation = 0;
  Assignor assignor = Assignor::sticky;
  OutOfRange out_of_range = OutOfRange::earliest;
  std::optional<Instant> empty_since{};
  std::vector<GroupMember> members{};
  std::vector<GroupPartition> partitions{};
};

}  // namespace v1
}  // namespace tailrace
