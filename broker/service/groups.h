#pragma once
/// What front ends ask of consumer groups, as values. Names of topics outside, ids within. Spec: docs/groups.md.
#include <cstdint>
#include <string>
#include <vector>

#include "base/time.h"
#include "group/group.h"

namespace tailrace::broker::service {

struct TopicPartitions {
  std::string topic;
  std::vector<PartitionIndex> partitions{};  // ascending
};

struct JoinGroup {
  std::string group;
  std::string member{};    // empty: a new one, which is given an id
  std::string instance{};  // outlives the process; empty: none
  std::vector<std::string> topics;
  std::chrono::milliseconds session_timeout{};
  // Of a group without members; others keep what they have.
  group::Assignor assignor = group::Assignor::sticky;
  group::OutOfRange out_of_range = group::OutOfRange::earliest;
};
struct GroupHeartbeat {
  std::string group;
  std::string member;
  group::Generation generation = 0;
  std::vector<TopicPartitions> owned;
  Instant wait_until{};  // with nothing new to tell, the answer waits so long
};
struct GroupBeat {
  std::string member{};
  group::Generation generation = 0;
  std::vector<TopicPartitions> assignment{};  // topics that were deleted are left out
  group::OutOfRange out_of_range{};
};

struct PartitionCommit {
  std::string topic;
  PartitionIndex partition{};
  Offset offset{};  // of the next record to read
  LeaderEpoch leader_epoch{-1};
  std::string metadata{};
};
struct CommitOffsets {
  std::string group;
  std::string member{};  // empty: from outside, for a group without members
  group::Generation generation = 0;
  std::vector<PartitionCommit> offsets;
};
struct StoredOffset {
  std::string topic;
  PartitionIndex partition{};
  group::OffsetRecord stored{};
};

enum class GroupState : std::uint8_t { empty, moving, stable };
struct GroupSummary {
  std::string group;
  GroupState state{};
  std::size_t members = 0;
  std::vector<std::string> topics{};  // that it reads or has offsets of
};
struct GroupMember {
  std::string member;
  std::string instance{};
  std::vector<TopicPartitions> granted{};
  std::vector<TopicPartitions> target{};
  std::chrono::milliseconds session_timeout{};
  std::chrono::milliseconds silent_after{};  // if it says nothing until then, it is gone
};
/// One partition that the group reads or has an offset of. -1: not known.
struct GroupLag {
  std::string topic;
  PartitionIndex partition{};
  std::string member{};      // who reads it; empty: nobody
  std::int64_t committed = -1;
  std::int64_t committed_time_ms = -1;
  std::string metadata{};
  std::int64_t log_start = -1;
  std::int64_t high_watermark = -1;
  std::int64_t records = -1;   // not read yet
  std::int64_t behind_ms = -1;  // age of the oldest of them; 0: none
};
struct GroupDescription {
  std::string group;
  GroupState state{};
  group::Generation generation = 0;
  group::Assignor assignor{};
  group::OutOfRange out_of_range{};
  std::int64_t empty_since_ms = 0;
  std::vector<GroupMember> members{};
  std::vector<GroupLag> partitions{};
};

/// One group on one topic, as it was some seconds ago.
struct GroupFigures {
  std::string group;
  std::string topic;
  GroupState state{};
  std::uint64_t members = 0;
  std::int64_t generation = 0;
  std::int64_t lag_records = 0;     // of all partitions together
  std::int64_t behind_ms = 0;       // of the worst
  std::int64_t last_commit_ms = 0;  // UTC; 0: never
};

}  // namespace tailrace::broker::service
