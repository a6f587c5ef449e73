#pragma once
/// A place in a consumer group, kept from the loop: join, heartbeats, leave. It knows no records.
///
///   joining --reply--> member --heartbeat, heartbeat ...--> told something new -> the user's side looks, and says what it has let go
///                         \--unknown_member--> lost: everything it read may be another's; joins again
///
/// Thread   members marked "any" from anywhere; the rest on the loop. `changed` is called on the loop, without a lock.
/// Spec     docs/groups.md; docs/native-protocol.md, "Groups".
#include <set>

#include "src/engine.h"
#include "tailrace/group_consumer.h"

namespace tailrace::inline v1::detail {

using TopicPartition = std::pair<std::string, std::int32_t>;

class GroupMembership final : public Part, public std::enable_shared_from_this<GroupMembership> {
 public:
  GroupMembership(std::shared_ptr<Engine> engine, std::string group, std::vector<std::string> topics, GroupOptions options, std::function<void()> changed);

  /// What the user's side must know. `life` rises with each join: what was read in an earlier one may be another's.
  struct View {
    std::uint64_t life = 0;
    std::string member{};        // empty: not a member now
    std::int64_t generation = 0;
    std::set<TopicPartition> told{};   // what it should read
    std::set<TopicPartition> owned{};  // what it was told and has not let go: others wait for what is not told any more
    OutOfRange out_of_range{};
    std::optional<Error> fatal{};
  };
  // Any.
  void start();
  [[nodiscard]] View view() const;
  /// These are not read any more, in `life`.
  void release(std::uint64_t life, const std::set<TopicPartition>& gone);
  /// No more messages from here on; leaves if it is a member. The completion is the answer, or the deadline.
  Task<void> leave(TimePoint deadline);

  // Loop.
  void begin_close(TimePoint deadline, std::function<void(CloseReport)> done) override;

 private:
  void join();
  void joined(Result<IncomingFrame*> frame);
  void heartbeat();
  void answered(std::uint64_t life, Result<IncomingFrame*> frame);
  void later(Milliseconds pause);
  void lost();
  void fail(Error error);
  void take(const google::protobuf::RepeatedPtrField<proto::TopicPartitions>& assignment, std::int64_t generation, proto::OutOfRange out_of_range);
  [[nodiscard]] Milliseconds interval() const { return options_.session_timeout / 3; }

  std::shared_ptr<Engine> engine_;
  const std::string group_;
  const std::vector<std::string> topics_;
  const GroupOptions options_;
  const std::function<void()> changed_;

  mutable std::mutex mutex_{};
  View view_{};

  // The loop's.
  enum class State : std::uint8_t { idle, joining, member, ended } state_ = State::idle;
  bool beating_ = false;        // a heartbeat is under way
  bool beat_again_ = false;     // something was let go since it was sent
  std::uint64_t attempt_ = 0;
  Milliseconds backoff_{};
  LoopTimer timer_;
};

}  // namespace tailrace::inline v1::detail
