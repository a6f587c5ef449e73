#pragma once
/// What front ends call. Both protocols use the same services; nothing here knows a wire format.
///
///   front end (any shard) -> ShardService of its own shard -> owner shard of the partition -> log
///
/// Thread   A front end talks only to the ShardService of the shard it runs on (`BrokerService::shard(here)`); the service
///          carries the work to the partition's owner and the answer back. Every call and every resumption is on the
///          caller's shard.
/// Tasks    are lazy: co_await them, or spawn them in a TaskScope that is drained before the front end goes away. A call
///          does its synchronous part (for produce: the append, when the owner is this shard; otherwise the mailbox
///          entry) before its first suspension, so calls spawned in order are carried out in order.
/// Answers  Answer<T> is a value or a Refusal: an Error plus named facts (log_start, log_end, actual_end_offset).
/// Stop     after BrokerService::stop() began, new calls answer shutting_down; those under way finish.
#include <cstdint>
#include <expected>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/notifier.h"
#include "base/result.h"
#include "base/task.h"
#include "base/time.h"
#include "cluster/catalog.h"
#include "log/shard_log.h"
#include "model/ids.h"
#include "model/record_batch.h"
#include "model/topic.h"
#include "raft/membership.h"
#include "service/groups.h"
#include "service/peers.h"
#include "service/queues.h"
#include "service/replication.h"
#include "service/streams.h"

namespace tailrace::broker::flow {
class MemoryBudget;
}
namespace tailrace::broker::io {
struct Runtime;
}
namespace tailrace::broker::shard {
class Shards;
}

namespace tailrace::broker::service {

struct Fact {
  std::string name;
  std::string value;
};

/// Why a call was refused: code and detail as everywhere, and the facts a program needs to go on.
struct Refusal : Error {
  std::vector<Fact> facts{};
  Refusal() = default;
  Refusal(Error error) : Error{std::move(error)} {}  // implicit: every Error is a refusal without facts
  Refusal(Errc why, std::string text, std::vector<Fact> named = {}) : Error{why, std::move(text)}, facts{std::move(named)} {}
};
template <class T = void>
using Answer = std::expected<T, Refusal>;

[[nodiscard]] inline std::unexpected<Refusal> refuse(Errc code, std::string detail = {}, std::vector<Fact> facts = {}) {
  return std::unexpected<Refusal>(Refusal{code, std::move(detail), std::move(facts)});
}

// ---- produce ------------------------------------------------------------------------------------------------------------

/// `batch` is exactly one batch, validated at the edge (codec): length, magic, CRC, counts, deltas. Its bytes are ours
/// from now on: offset, epoch and, for LogAppendTime, time and CRC are written in place, so no other Slice may cover them.
struct ProduceRequest {
  TopicId topic{};
  PartitionIndex partition{};
  Slice batch{};
  BatchHeader header{};
  std::optional<Offset> expected_end_offset{};  // refused with wrong_version unless the log ends exactly there
  std::optional<Instant> deadline{};            // past it before the append: timeout, nothing applied
};
struct ProduceReply {
  Offset base_offset{};
  std::int64_t log_append_time_ms = -1;  // -1 unless the topic stamps it
  bool duplicate = false;                // stored before; base_offset is the original one
};

// ---- fetch --------------------------------------------------------------------------------------------------------------

struct FetchRequest {
  TopicId topic{};
  PartitionIndex partition{};
  Offset from{};
  std::uint64_t bytes_max = 0;    // at least one batch is answered when there is one, whatever its size
  std::uint64_t records_max = 0;  // 0: no bound; the last batch may overdraw it
  Instant wait_until{};           // with nothing to read, wait so long for data; a time already past: answer at once
};
struct FetchReply {
  std::vector<Slice> batches{};   // whole batches; the first may begin below `from`
  Offset next{};                  // where to go on: after the last batch, or `from` when empty
  std::uint64_t records = 0;      // at or above `from`
  std::uint64_t bytes = 0;
  Offset log_start{};
  Offset high_watermark{};
  LeaderEpoch leader_epoch{};
  [[nodiscard]] bool reached_end() const { return next >= high_watermark; }
};

class ShardService;

/// One partition's reader: at most one fetch under way. It makes long waits end at once when the reader goes away.
///
/// Owner    the subscription, on its shard. Outlives its fetch: cancel(), await the fetch, then destroy.
/// Errors   no_such_topic (also: deleted meanwhile), no_such_partition, offset_out_of_range with facts log_start and
///          high_watermark, corrupt (a hole), cancelled, shutting_down, io_error.
class Fetcher {
 public:
  explicit Fetcher(ShardService& here);
  Fetcher(const Fetcher&) = delete;
  Fetcher& operator=(const Fetcher&) = delete;
  ~Fetcher();
  [[nodiscard]] Task<Answer<FetchReply>> fetch(FetchRequest request);
  /// The fetch under way, and every later one until reset(), answers `cancelled` promptly. From any code on the reader's shard.
  void cancel();
  void reset();

  struct Wait;  // private to the room

 private:
  ShardService& here_;
  std::unique_ptr<Wait> wait_;
};

// ---- topics -------------------------------------------------------------------------------------------------------------

struct KeyValue {
  std::string key;
  std::string value;
};
struct CreateTopicRequest {
  std::string name;
  std::int32_t partitions = 1;
  std::int32_t replicas = 0;   // 0: the broker's default; more than one needs more than one node
  std::vector<KeyValue> config{};
  bool validate_only = false;
  // Where another broker decided: under this id, and voted on by these. Every one of them is told the same.
  std::optional<TopicId> id{};
  std::vector<raft::ReplicaId> voters{};  // none: this directory alone
};
struct AlterTopicRequest {
  std::string name;
  std::int32_t partitions = 0;  // 0: as it is; otherwise more than now
  std::vector<KeyValue> set{};
  std::vector<std::string> unset{};
  bool validate_only = false;
};
struct ConfigValue {
  std::string key;
  std::string value;
  bool is_default = false;
  std::string meaning;
};
struct PartitionDescription {
  PartitionIndex index{};
  NodeId leader{};
  LeaderEpoch leader_epoch{};
  std::vector<NodeId> replicas{};
  Offset log_start{};
  Offset high_watermark{};
  Offset log_end{};
  std::uint64_t bytes = 0;
  std::uint32_t segments = 0;
  std::int64_t first_time_ms = -1;  // -1: empty
  std::int64_t last_time_ms = -1;
  ShardIndex shard{};
  std::string damage{};             // empty: none known
};
struct TopicDescription {
  cluster::TopicPointer topic;
  std::vector<ConfigValue> config;
  std::vector<PartitionDescription> partitions;
};
struct PartitionOffset {
  PartitionIndex partition{};
  Offset offset{};
};
struct DeleteRecordsRequest {
  std::string topic;
  std::vector<PartitionOffset> before;  // offset -1: everything that is committed now
  bool validate_only = false;
};

/// Where to begin reading. `last`: the last n records of the partition. `exact`: checked against the valid range.
struct Position {
  enum class Kind { start, end, time, last, exact } kind = Kind::start;
  std::int64_t value = 0;  // time: milliseconds since the epoch; last: n; exact: the offset
};
struct ListOffsetsQuery {
  PartitionIndex partition{};
  Position at{};
};
struct ListedOffset {
  PartitionIndex partition{};
  Offset offset{};
  std::int64_t time_ms = -1;  // of the record found by time; -1: none
  LeaderEpoch leader_epoch{};
  Offset log_start{};
  Offset high_watermark{};
};

struct OpenProducerRequest {
  std::string topic;
  std::optional<ProducerId> producer_id{};  // a reconnecting producer names the one it has
  ProducerEpoch producer_epoch{};
  bool idempotent = true;
};
struct OpenProducerReply {
  cluster::TopicPointer topic;
  ProducerId producer_id = kNoProducer;
  ProducerEpoch producer_epoch{};
  std::uint64_t window_bytes = 0;
};

// ---- counters -----------------------------------------------------------------------------------------------------------

struct TopicCounters {
  std::string name;
  std::uint64_t records_in = 0, bytes_in = 0, batches_in = 0, duplicates = 0;
  std::uint64_t records_out = 0, bytes_out = 0;
  TopicCounters& operator+=(const TopicCounters& other);
};

struct ShardStatus {
  ShardIndex shard{};
  std::vector<TopicCounters> topics;                  // those used since the start, in no order
  std::map<Errc, std::uint64_t> refusals;             // produce, fetch and admin calls, by code
  log::LatencyHistogram produce_latency, fetch_latency;  // fetch: without the wait for data
  std::uint64_t produces = 0, fetches = 0, fetch_waits = 0;
  std::size_t calls_in_flight = 0, waits_in_flight = 0, partitions_open = 0, partitions_owned = 0;
  std::uint64_t retention_runs = 0, retention_segments = 0, retention_bytes = 0;
  std::uint64_t producer_window_bytes = 0;
  std::uint64_t memory_used = 0, memory_limit = 0;
  bool storage_failed = false, disk_full = false;
  std::vector<GroupFigures> groups{};                 // whose coordinator is here
  std::uint64_t groups_left_out = 0;                  // further ones: groups on topics, of which figures are not kept
  log::ShardLogStats log{};
};

/// What a health check asks: costs nothing, however many topics there are.
struct ShardHealth {
  bool storage_failed = false;
  std::string failure{};  // of the storage; empty: none
  Duration oldest_write{};  // for how long the oldest write of the log has been under way
};

// ---- the service of one shard --------------------------------------------------------------------------------------------

class ShardCore;  // private to the room

/// Thread   its shard's.
class ShardService {
 public:
  explicit ShardService(std::unique_ptr<ShardCore> core);
  ~ShardService();
  ShardService(const ShardService&) = delete;
  ShardService& operator=(const ShardService&) = delete;

  /// Topics as known here. Never null after the start; replaced whole, so keep the pointer only within one step.
  [[nodiscard]] std::shared_ptr<const cluster::Catalog> catalog() const;

  /// Appended in the order of the calls; many may be in flight. Answers of one partition come in the order of the calls,
  /// refusals included; a front end that promises order over several partitions queues them itself.
  /// Answered when the topic's durability says so (quorum, leader: flushed here; relaxed: in memory).
  /// Errors: no_such_topic, no_such_partition, too_large, invalid_record, wrong_version (fact actual_end_offset),
  /// out_of_order_sequence, unknown_producer, fenced, duplicate_sequence, storage_full, io_error, corrupt, timeout, too_many.
  [[nodiscard]] Task<Answer<ProduceReply>> produce(ProduceRequest request);

  /// Bytes a publish stream may have unanswered now; it follows WAL and memory pressure.
  [[nodiscard]] std::uint64_t producer_window_bytes() const;
  /// Fires when producer_window_bytes() changed by half or more.
  [[nodiscard]] Notifier& window_changed();

  [[nodiscard]] Task<Answer<cluster::TopicPointer>> create_topic(CreateTopicRequest request);
  [[nodiscard]] Task<Answer<cluster::TopicPointer>> alter_topic(AlterTopicRequest request);
  [[nodiscard]] Task<Answer<TopicDescription>> describe_topic(std::string name);
  /// Durable when it answers: gone from the catalog of every shard, live readers answered no_such_topic, files removed.
  [[nodiscard]] Task<Answer<void>> delete_topic(std::string name, bool validate_only);
  /// Answers the log start of each partition asked for. Offsets beyond the high watermark: offset_out_of_range.
  [[nodiscard]] Task<Answer<std::vector<PartitionOffset>>> delete_records(DeleteRecordsRequest request);
  /// One answer per query, in order; a query may fail alone. The outer refusal: no such topic.
  [[nodiscard]] Task<Answer<std::vector<Answer<ListedOffset>>>> list_offsets(std::string topic, std::vector<ListOffsetsQuery> queries);
  /// Gives a producer id that no other producer of this cluster had or gets, across restarts.
  /// unknown_producer: the id named was never given out.
  [[nodiscard]] Task<Answer<OpenProducerReply>> open_producer(OpenProducerRequest request);

  // Consumer groups (docs/groups.md). Errors of all: invalid_argument, unknown_member, fenced, too_many, no_such_group, no_such_topic,
  // no_such_partition, group_not_empty, outcome_unknown, not_leader, storage_full, io_error.
  [[nodiscard]] Task<Answer<GroupBeat>> join_group(JoinGroup request);
  [[nodiscard]] Task<Answer<GroupBeat>> group_heartbeat(GroupHeartbeat request);
  /// The broker is about to stop: heartbeats wait no more, here on this shard, so that connections can end.
  void end_waits();
  [[nodiscard]] Task<Answer<void>> leave_group(std::string group, std::string member);
  /// Stored for good when it answers.
  [[nodiscard]] Task<Answer<void>> commit_offsets(CommitOffsets request);
  /// `of` empty: all of the group. What was never stored is left out.
  [[nodiscard]] Task<Answer<std::vector<StoredOffset>>> stored_offsets(std::string group, std::vector<TopicPartitions> of);
  [[nodiscard]] Task<Answer<std::vector<GroupSummary>>> list_groups();
  [[nodiscard]] Task<Answer<GroupDescription>> describe_group(std::string group);
  /// Sets offsets; the group is made if it is not there. `kick`: its members are removed first.
  [[nodiscard]] Task<Answer<void>> reset_offsets(std::string group, std::vector<PartitionCommit> offsets, bool kick);
  [[nodiscard]] Task<Answer<void>> delete_group(std::string group);

  // Queue groups on one partition (docs/queues.md). Errors of all: no_such_topic, no_such_partition, no_such_group, invalid_argument, too_many,
  // outcome_unknown, not_leader, storage_full, io_error, shutting_down.
  [[nodiscard]] Task<Answer<OpenedQueue>> open_queue(std::string topic, PartitionIndex partition, OpenQueue request);
  [[nodiscard]] Task<Answer<std::vector<LeasedRecord>>> lease_records(std::string topic, PartitionIndex partition, LeaseRecords request);
  /// One answer for each record: nothing, or not_found, fenced, no_credit, invalid_argument.
  [[nodiscard]] Task<Answer<std::vector<Result<void>>>> settle_records(std::string topic, PartitionIndex partition, std::string group, queue::WorkerId worker, std::vector<SettleRecord> records);
  [[nodiscard]] Task<Answer<QueueDescription>> describe_queue(std::string topic, PartitionIndex partition, std::string group);
  [[nodiscard]] Task<Answer<std::vector<std::string>>> list_queues(std::string topic, PartitionIndex partition);
  [[nodiscard]] Task<Answer<void>> delete_queue(std::string topic, PartitionIndex partition, std::string group);

  // With other brokers. Errors: no_such_topic, no_such_partition, not_leader, invalid_argument (the reason by name).
  /// One member of a partition's replicas, appended when it answers; committed later.
  [[nodiscard]] Task<Answer<void>> change_members(TopicId topic, PartitionIndex partition, raft::MembershipChange change);
  /// Begins to hand leadership over.
  [[nodiscard]] Task<Answer<void>> transfer(TopicId topic, PartitionIndex partition, raft::ReplicaId to);
  [[nodiscard]] ShardIndex home(const PartitionId& partition) const;
  /// What another broker said about a partition of this shard; what is not for it is dropped. On its shard.
  void receive(PeerMessage message);

  // Event streams (docs/event-store.md). Errors of all: no_such_topic, not_a_stream_topic, invalid_argument (a name that cannot be), not_leader, io_error.
  /// Appended if the stream is as expected. Errors: wrong_version with facts actual_version (-1: none) and actual_time_ms, invalid_record, and those of produce().
  [[nodiscard]] Task<Answer<StreamAppendReply>> append_stream(StreamAppendRequest request);
  /// Errors: no_such_stream, invalid_argument, corrupt.
  [[nodiscard]] Task<Answer<StreamReadReply>> read_stream(StreamReadRequest request);
  /// In order of their bytes, of all partitions.
  [[nodiscard]] Task<Answer<std::vector<stream::Listed>>> list_streams(StreamListRequest request);
  [[nodiscard]] Task<Answer<stream::Head>> describe_stream(std::string topic, std::string stream);
  /// The head behind it. Errors: no_such_stream, invalid_argument.
  [[nodiscard]] Task<Answer<stream::Head>> truncate_stream(StreamTruncateRequest request);

  /// The operator's word to go on past a hole.
  [[nodiscard]] Task<Answer<void>> skip_damage(std::string topic, PartitionIndex partition);

  [[nodiscard]] ShardStatus status() const;  // gathers every used topic: for /metrics
  [[nodiscard]] ShardHealth health() const;
  /// Memory of this shard, in named pools; requests acquire before they are read whole.
  [[nodiscard]] flow::MemoryBudget& memory();
  [[nodiscard]] ShardIndex index() const;
  [[nodiscard]] ShardCore& core() { return *core_; }

 private:
  std::unique_ptr<ShardCore> core_;
};

// ---- the node -----------------------------------------------------------------------------------------------------------

struct BrokerOptions {
  std::string data_directory;
  NodeId node{1};                       // of a new directory; an existing one keeps its own
  TopicConfig topic_defaults{};
  log::ShardLogOptions log{};           // of every shard; data_directory, directory_id and shard are filled in
  std::uint64_t memory_bytes = limits::kShardMemoryDefault;  // per shard, over all pools
  std::chrono::milliseconds retention_interval{60'000};
  std::uint64_t metadata_snapshot_commands = 4'096;  // commands after which the metadata log is cut to a snapshot
  std::chrono::milliseconds group_retention{7 * 24 * 3'600'000};  // of offsets of a group that nobody is in
  ReplicationOptions replication{};
  OpenStreamIndexes stream_indexes{};   // none: topics of event streams cannot be made
};

struct StartReport {
  bool is_new = false;                    // the data directory was made by this start
  bool was_clean = false;
  std::uint64_t topics = 0, partitions = 0;
  std::uint64_t partitions_lost = 0;      // named by metadata, not known to their shard: damaged
  std::uint64_t partitions_removed = 0;   // an interrupted create or delete was cleaned up
  std::uint64_t partitions_kept = 0;      // stored, with records, but unknown to metadata: kept and logged
  std::vector<log::RecoveryReport> recovery{};  // by shard
  std::uint32_t shards_before = 0;        // differs from the number of shards now: partitions were moved to their new homes
};
struct StopReport {
  bool clean = false;                     // everything was drained, closed, and the clean mark is set
  std::size_t calls_left = 0;             // still under way when the deadline passed
};

enum class BrokerState : std::uint8_t { created, starting, serving, stopping, stopped, failed };

/// One node: data directory, shard logs, metadata, and the services of all shards.
///
/// Thread   constructed, started, stopped and destroyed on shard 0's thread while all shards' loops run; shard(i) may be asked from any
///          thread between start() and stop(), state() from any at any time.
class BrokerService {
 public:
  /// `runtimes[i]` belongs to shard i. All of them, and `shards`, outlive this object.
  BrokerService(BrokerOptions options, std::vector<io::Runtime*> runtimes, shard::Shards& shards);
  ~BrokerService();
  BrokerService(const BrokerService&) = delete;
  BrokerService& operator=(const BrokerService&) = delete;

  /// Errors: data_directory_locked, foreign_data_directory, newer_format, corrupt, io_error, storage_full. After an error nothing
  /// runs and the object may be destroyed.
  [[nodiscard]] Task<Result<StartReport>> start();
  /// Refuses new calls, ends waits, drains what is under way, closes the logs and sets the clean mark. At the deadline
  /// the wait for callers ends; the logs are closed all the same, and `clean` says how it went.
  [[nodiscard]] Task<StopReport> stop(Instant deadline);

  [[nodiscard]] BrokerState state() const;
  [[nodiscard]] ShardService& shard(ShardIndex index);
  [[nodiscard]] std::uint32_t shard_count() const;
  [[nodiscard]] NodeId node_id() const;
  [[nodiscard]] const std::string& cluster_id() const;
  /// From shard 0, or any shard: asks each shard in turn.
  [[nodiscard]] Task<std::vector<ShardStatus>> status(ShardIndex asking_from);

 private:
  struct Node;
  std::unique_ptr<Node> node_;
};

}  // namespace tailrace::broker::service
