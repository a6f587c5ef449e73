#pragma once
/// Cluster metadata as a pure function of the log of `__metadata`-0.
///
/// Replay    apply() every record's value from the log start on, in order.
/// Proposal  check() a command against the state as it is, append it, wait until it is committed, apply() the same bytes. Applying
///           checks again: once several nodes propose, a command that was valid when written may no longer be.
/// Topics    absent -> create -> live -> delete -> removing -> removed -> absent. Only a live topic is in the catalog. While
///           `removing`, its files may still exist, and a restart goes on removing them; its name is free again.
/// Thread    one owner. The catalog it hands out is immutable and may go anywhere.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cluster/catalog.h"
#include "cluster/commands.h"

namespace tailrace::broker::cluster {

inline constexpr std::string_view kMetadataTopicName = "__metadata";

struct Removing {
  std::string name;
  std::int32_t partitions = 0;
};

class MetadataState {
 public:
  explicit MetadataState(TopicConfig defaults);

  /// Would this command be carried out now? Errors: invalid_topic_name, topic_exists (also for a clash of '.' and '_'),
  /// no_such_topic, invalid_argument, too_many.
  [[nodiscard]] Result<void> check(const Command& command) const;

  /// Carries out one stored command. An error leaves the state as it was. corrupt and newer_format: the bytes themselves are
  /// not understood, and nothing after them may be applied. Any other error is check()'s: the command has no effect, here and
  /// on every other node, and applying goes on.
  [[nodiscard]] Result<void> apply(Bytes command);
  [[nodiscard]] static bool is_fatal(const Error& error) { return error.code == Errc::corrupt || error.code == Errc::newer_format; }

  [[nodiscard]] std::shared_ptr<const Catalog> catalog() const { return catalog_; }
  [[nodiscard]] const std::map<TopicId, Removing>& removing() const { return removing_; }
  [[nodiscard]] std::int64_t next_producer_id() const { return next_producer_id_; }
  [[nodiscard]] std::int64_t partitions_total() const { return partitions_total_; }
  /// Commands applied or refused since the last whole snapshot; decides when to write the next one.
  [[nodiscard]] std::uint64_t commands_since_snapshot() const { return commands_since_snapshot_; }

  /// The whole state as commands (one SnapshotBegin and its parts) to be appended in one go. Applying them to any state gives
  /// this one.
  [[nodiscard]] std::vector<Command> snapshot() const;
  /// The state's own bytes; equal states have equal bytes.
  [[nodiscard]] std::vector<std::byte> encoded() const;

  void check_invariants() const;

 private:
  [[nodiscard]] Result<void> check_one(const CreateTopic& c) const;
  [[nodiscard]] Result<void> check_one(const AlterTopic& c) const;
  [[nodiscard]] Result<void> check_one(const DeleteTopic& c) const;
  [[nodiscard]] Result<void> check_one(const TopicRemoved& c) const;
  [[nodiscard]] Result<void> check_one(const AllocateProducerIds& c) const;
  [[nodiscard]] Result<void> check_one(const SnapshotBegin& c) const;
  [[nodiscard]] Result<void> check_one(const SnapshotPart& c) const;
  [[nodiscard]] Result<void> apply_one(const CreateTopic& c);
  [[nodiscard]] Result<void> apply_one(const AlterTopic& c);
  [[nodiscard]] Result<void> apply_one(const DeleteTopic& c);
  [[nodiscard]] Result<void> apply_one(const TopicRemoved& c);
  [[nodiscard]] Result<void> apply_one(const AllocateProducerIds& c);
  [[nodiscard]] Result<void> apply_one(const SnapshotBegin& c);
  [[nodiscard]] Result<void> apply_one(SnapshotPart& c);
  [[nodiscard]] Result<void> load(Bytes bytes);
  [[nodiscard]] std::shared_ptr<Catalog> copy_of_catalog() const;
  void insert(Catalog& catalog, TopicPointer topic);

  TopicConfig defaults_;
  std::shared_ptr<const Catalog> catalog_;
  std::map<std::string, TopicId, std::less<>> clash_keys_;  // topic_clash_key(name) of every live topic
  std::map<TopicId, Removing> removing_;
  std::int64_t next_producer_id_ = 0;
  std::int64_t partitions_total_ = 0;
  std::uint64_t commands_since_snapshot_ = 0;
  struct Loading {
    SnapshotBegin begin;
    std::uint32_t parts = 0;
    std::vector<std::byte> bytes;
  };
  std::optional<Loading> loading_;
};

}  // namespace tailrace::broker::cluster
