#pragma once
/// The coordinators of one shard: each is made when its partition of `__offsets` is first needed, and made anew when it failed. Private to `service`.
/// Shard    its own.
#include <memory>

#include "service/group_coordinator.h"
#include "service/loaded.h"

namespace tailrace::broker::service {

inline constexpr std::string_view kOffsetsTopic = "__offsets";
/// Where a group lives, on any node, for ever.
[[nodiscard]] PartitionIndex coordinator_of(std::string_view group);

class GroupHost {
 public:
  explicit GroupHost(ShardCore& core);
  GroupHost(const GroupHost&) = delete;
  GroupHost& operator=(const GroupHost&) = delete;

  /// Errors: no_such_group (nothing was ever stored), and what StateLog says.
  [[nodiscard]] Task<Answer<std::shared_ptr<GroupCoordinator>>> coordinator(PartitionIndex partition);
  /// Those of groups that were there before: their members' sessions end even if nobody asks.
  [[nodiscard]] Task<void> load_all();
  [[nodiscard]] Task<void> ticks();
  /// Keeps figures() up to date.
  [[nodiscard]] Task<void> measure();
  [[nodiscard]] const std::vector<GroupFigures>& figures() const { return figures_; }
  [[nodiscard]] std::uint64_t figures_left_out() const { return figures_left_out_; }
  void stop() { loaded_.stop(); }

 private:
  ShardCore& core_;
  Loaded<PartitionIndex, GroupCoordinator> loaded_;
  // What was found out in the last round: a record that is still the first unread one is not read again.
  KnownUnread known_{};
  std::vector<GroupFigures> figures_{};
  std::uint64_t figures_left_out_ = 0;
};

}  // namespace tailrace::broker::service
