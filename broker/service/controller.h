#pragma once
/// Owner of `__metadata`-0: the one place where topics change. Private to the room `service`.
///
/// Thread   shard 0. One change at a time, in order of arrival; limits::kAdminCallsMax may wait.
/// Order    create, grow: partition logs first (durable), then the command, then the catalog of every shard, then the answer. A
///          crash between leaves empty partitions that metadata does not know: the next start removes them.
///          delete: the command, the catalogs, then the files, then the command that says so. A crash between leaves the
///          topic in `removing`: the next start goes on.
///          So metadata never names a partition that was not there: one that its shard does not know was lost, is damaged from its
///          first offset on, and stays so until somebody accepts that or deletes the topic. And nothing that holds records is removed unless metadata says
///          that its topic was deleted: a partition with records that metadata does not know is kept and logged, since it
///          may be metadata that was damaged.
#include <memory>

#include "cluster/metadata_state.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {

class Controller {
 public:
  explicit Controller(ShardCore& core);
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  /// Opens or creates the metadata partition and replays it. `is_new`: the data directory was made by this start.
  /// Errors: corrupt (damaged, or missing although other partitions are there), newer_format, and the log's.
  [[nodiscard]] Task<Result<void>> load(bool is_new);
  /// Makes what is stored agree with metadata, on all shards.
  [[nodiscard]] Task<Result<void>> reconcile(StartReport& report);
  /// Gives every shard the catalog; returns when all have it.
  [[nodiscard]] Task<void> publish(std::optional<TopicId> changed);

  [[nodiscard]] Task<Answer<cluster::TopicPointer>> create(CreateTopicRequest request);
  /// A topic of the broker's own, made when it is not there. `beside`: a user's topic, whose partitions and shards it has; then `partitions` is not
  /// looked at. Errors: no_such_topic (beside), and create()'s.
  [[nodiscard]] Task<Answer<cluster::TopicPointer>> ensure_internal(std::string name, std::int32_t partitions, std::optional<TopicId> beside);
  [[nodiscard]] Task<Answer<cluster::TopicPointer>> alter(AlterTopicRequest request);
  [[nodiscard]] Task<Answer<void>> remove(std::string name, bool validate_only);
  /// The first id of a fresh block of limits::kProducerIdBlock.
  [[nodiscard]] Task<Answer<std::int64_t>> allocate_producer_ids();
  [[nodiscard]] bool gave_out(ProducerId id) const { return id.value() >= 0 && id.value() < state_.next_producer_id(); }
  [[nodiscard]] const cluster::MetadataState& state() const { return state_; }
  /// Lets go of the log; nothing may be under way.
  void close();

 private:
  /// Errors before the append change nothing; after it (`appended` is true) the outcome is not known.
  struct Proposed {
    Result<void> result;
    bool appended = false;
  };
  /// What says that the data directory was in use before.
  struct Traces {
    std::uint64_t partitions = 0;  // stored, on all shards
    std::uint64_t lost = 0;        // places of write-ahead logs that recovery found damaged or missing
  };
  [[nodiscard]] Task<Traces> traces_of_use();
  [[nodiscard]] Task<Proposed> propose(cluster::Command command);
  [[nodiscard]] Task<Result<Offset>> append(const cluster::Command& command);
  [[nodiscard]] Task<void> snapshot_if_due();
  [[nodiscard]] Task<Result<void>> on_all_shards_create(TopicId topic, std::int32_t from, std::int32_t to, TopicConfig config, std::vector<raft::ReplicaId> voters);
  [[nodiscard]] Task<Result<void>> on_all_shards_remove(TopicId topic, std::int32_t from, std::int32_t to);
  [[nodiscard]] Task<Result<void>> finish_removal(TopicId topic, std::int32_t partitions);
  [[nodiscard]] Answer<cluster::TopicPointer> preview(const cluster::Command& command, TopicId topic) const;
  [[nodiscard]] Answer<void> check_wal(const cluster::TopicSettings& settings, const TopicConfig& config) const;
  [[nodiscard]] TopicId draw_id();
  [[nodiscard]] TopicId draw_id_like(TopicId other);
  /// The partitions' logs, the command, the catalogs. The door is held.
  [[nodiscard]] Task<Answer<cluster::TopicPointer>> create_checked(cluster::CreateTopic command, std::vector<raft::ReplicaId> voters);
  [[nodiscard]] Answer<void> enter() const;

  ShardCore& core_;
  cluster::MetadataState state_;
  log::PartitionPtr log_;
  std::shared_ptr<ReplicatedPartition> replicated_;  // of log_
  Door door_;
};

}  // namespace tailrace::broker::service
