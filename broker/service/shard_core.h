#pragma once
/// The state of one shard's service: open partitions, counters, background work. Private to the room `service`.
///
/// Thread   its shard's. Other shards reach it only through shard::Port::call_on.
#include <map>
#include <memory>
#include <set>
#include <unordered_map>

#include "base/notifier.h"
#include "flow/memory_budget.h"
#include "io/runtime.h"
#include "log/shard_log.h"
#include "service/broker_service.h"
#include "service/replicated_partition.h"
#include "service/replication.h"
#include "service/streams.h"
#include "shard/shards.h"
#include "stream/warm_heads.h"

namespace tailrace::broker::service {

class Controller;
class GroupHost;
class QueueHost;
class StreamPartition;
class ShardCore;
struct OwnerWait;
struct RemoteWait;

/// What all shards of a node know; fixed while they serve.
struct NodeContext {
  BrokerOptions options;
  NodeId node{};
  std::string cluster_id;
  shard::Shards* shards = nullptr;
  std::vector<ShardCore*> cores;     // by shard; a core is touched only on its own shard
  Controller* controller = nullptr;  // touched only on shard 0
};
inline constexpr ShardIndex kControllerShard{0};

/// Lets one at a time in, in the order of their tickets.
class Door {
 public:
  explicit Door(Executor& executor) : moved_{executor} {}
  [[nodiscard]] std::uint64_t waiting() const { return next_ - serving_; }  // the one inside included

 private:
  friend class DoorTicket;
  std::uint64_t next_ = 0;
  std::uint64_t serving_ = 0;
  Notifier moved_;
};
/// A place in the queue, from construction to destruction: `DoorTicket t{door}; while (!t.my_turn()) co_await t.moved();`
class DoorTicket {
 public:
  explicit DoorTicket(Door& door) : door_{door}, ticket_{door.next_++} {}
  DoorTicket(const DoorTicket&) = delete;
  DoorTicket& operator=(const DoorTicket&) = delete;
  /// Only after it was let in: tickets are called up one after the other.
  ~DoorTicket() {
    ++door_.serving_;
    door_.moved_.notify_one();
  }
  [[nodiscard]] bool my_turn() const { return door_.serving_ == ticket_; }
  [[nodiscard]] auto moved() const { return door_.moved_.wait(); }

 private:
  Door& door_;
  std::uint64_t ticket_;
};

/// One partition that lives here, from its first use to its removal.
///
/// Order    produces pass the door one by one: while the first is held up (the partition is being opened, or the WAL has no
///          room), later ones queue behind it, so that they are appended in the order of their arrival.
struct PartitionSlot {
  PartitionSlot(PartitionId its_id, Executor& executor) : id{its_id}, door{executor}, changed{executor} {}
  PartitionId id;
  log::PartitionPtr log;        // null until opened
  std::shared_ptr<ReplicatedPartition> replicated;  // with it: who appends, commits and moves the log start
  std::shared_ptr<StreamPartition> streams;         // of a stream topic, from its first use on
  bool opening = false;
  bool removing = false;        // the topic is gone: nobody enters, waits end
  std::optional<Error> open_error;
  Door door;
  std::size_t users = 0;        // calls inside; the files go when nobody is left
  Notifier changed;             // opened or failed to, last user left, removing
  TopicCounters* counters = nullptr;
  cluster::TopicPointer topic;  // as the catalog of this shard has it
};

/// Holds a slot in place while a call uses it.
class SlotUse {
 public:
  explicit SlotUse(std::shared_ptr<PartitionSlot> slot) : slot_{std::move(slot)} { ++slot_->users; }

  SlotUse(const SlotUse&) = delete;
  SlotUse& operator=(const SlotUse&) = delete;
  ~SlotUse() {
    if (--slot_->users == 0) slot_->changed.notify_all();
  }
  PartitionSlot* operator->() const { return slot_.get(); }
  PartitionSlot& operator*() const { return *slot_; }

 private:
  std::shared_ptr<PartitionSlot> slot_;
};

/// Of a partition, behind an offset. -1: not known, or none.
struct Unread {
  Offset log_start{};
  Offset high_watermark{};
  std::int64_t records = 0;
  Offset first{};               // of them
  std::int64_t oldest_ms = -1;  // its timestamp
};
/// First unread record and its timestamp, by partition: several groups that stand at one place share it.
using KnownUnread = std::map<std::pair<PartitionId, Offset>, std::int64_t>;

class ShardCore {
 public:
  ShardCore(NodeContext& its_node, ShardIndex its_index, io::Runtime& its_runtime);
  ShardCore(const ShardCore&) = delete;
  ShardCore& operator=(const ShardCore&) = delete;
  ~ShardCore();

  NodeContext& node;
  const ShardIndex index;
  io::Runtime& runtime;
  shard::Port& port;
  std::unique_ptr<log::ShardLog> log;
  std::unique_ptr<Replication> replication;  // with it
  std::unique_ptr<GroupHost> groups;
  std::unique_ptr<QueueHost> queues;
  ShardService* service = nullptr;  // whose core this is: what the broker does here for itself goes the way of a client's call
  std::shared_ptr<const cluster::Catalog> catalog;
  flow::MemoryBudget memory;
  TaskScope background;            // retention, pressure, cancels, deliveries
  bool stopping = false;
  bool waits_end = false;          // heartbeats are answered at once
  Notifier stop_signal;            // wakes background work
  Notifier calls_changed;          // a call ended while stopping
  Notifier window_changed;
  ShardStatus counters;            // monotone parts of status()
  std::size_t calls = 0;           // of front ends, under way
  std::size_t fetches = 0;         // of these: they wait for long, and front ends bound them by what a subscription costs
  std::size_t waits = 0;           // fetches waiting for data
  std::unordered_map<PartitionId, std::shared_ptr<PartitionSlot>> slots;
  std::unordered_map<TopicId, std::unique_ptr<TopicCounters>> topic_counters;

  // Topics of the broker's own that are being made for somebody here; others who need them wait.
  std::set<std::string> ensuring;
  Notifier ensured;

  // Producer ids of this shard's block; more are fetched from the controller.
  std::int64_t producer_id_next = 0, producer_id_end = 0;
  bool producer_ids_asked = false;
  Notifier producer_ids_changed;

  // Event streams: their index is opened with the first partition of them that is used.
  std::unique_ptr<StreamIndexes> stream_indexes;
  bool stream_indexes_opening = false;
  Notifier stream_indexes_changed;
  stream::WarmHeads warm_heads{limits::kWarmHeadsBytes};
  std::uint32_t ledgers_made = 0;  // numbers them in warm_heads

  [[nodiscard]] ShardIndex home(const PartitionId& id) const;
  [[nodiscard]] ShardCore& core_of(ShardIndex shard) const { return *node.cores[shard.value()]; }

  /// Refusals that need no partition: stopping, no such topic or partition, the broker's own topic.
  [[nodiscard]] Answer<cluster::TopicPointer> topic_of(const TopicId& id, PartitionIndex partition) const;
  [[nodiscard]] Answer<cluster::TopicPointer> topic_named(std::string_view name) const;

  /// A topic of the broker's own, made if it is not there: one call of the controller, however many ask.
  [[nodiscard]] Task<Answer<cluster::TopicPointer>> ensure_internal(std::string name, std::int32_t partitions, std::optional<TopicId> beside);

  /// The slot of a partition that clients may use; made on first use. The same refusals as topic_of().
  [[nodiscard]] Answer<std::shared_ptr<PartitionSlot>> slot_for(const PartitionId& id);
  [[nodiscard]] std::shared_ptr<PartitionSlot> slot_of(const PartitionId& id, const cluster::TopicPointer& topic);
  /// Opens the partition if need be. Concurrent calls share one opening.
  [[nodiscard]] Task<Answer<void>> open(PartitionSlot& slot);
  /// Nobody is let in any more: shutting_down, no_such_topic.
  [[nodiscard]] Answer<void> admit(const PartitionSlot& slot) const;

  [[nodiscard]] Task<Answer<ProduceReply>> produce(ProduceRequest request);   // on the owner
  [[nodiscard]] Task<Answer<FetchReply>> fetch(FetchRequest request, OwnerWait& wait);  // on the owner
  [[nodiscard]] Task<Answer<FetchReply>> fetch_elsewhere(ShardIndex owner, FetchRequest request, Fetcher::Wait& wait);

  /// The streams of a partition that lives here. Errors: slot_for()'s, not_a_stream_topic, unsupported (no index is configured), io_error.
  [[nodiscard]] Task<Answer<std::shared_ptr<StreamPartition>>> streams_of(PartitionSlot& slot);
  [[nodiscard]] Task<Answer<void>> open_stream_indexes();

  // Partitions that live here, as the controller and the admin calls of any shard ask for them.
  [[nodiscard]] Task<Result<void>> create_partitions(TopicId topic, std::int32_t from, std::int32_t to, TopicConfig config, std::vector<raft::ReplicaId> voters);
  [[nodiscard]] Task<Result<void>> remove_partitions(TopicId topic, std::int32_t from, std::int32_t to);
  [[nodiscard]] Task<Answer<std::vector<PartitionDescription>>> describe_partitions(TopicId topic);
  [[nodiscard]] Task<Answer<PartitionOffset>> delete_records(TopicId topic, PartitionOffset before, bool validate_only);
  [[nodiscard]] Task<Answer<ListedOffset>> list_offset(TopicId topic, ListOffsetsQuery query);
  [[nodiscard]] Task<Answer<void>> skip_damage(TopicId topic, PartitionIndex partition);
  [[nodiscard]] Task<Offset> deletable(const cluster::Topic& topic, PartitionIndex partition, Offset before);
  /// What is in `known` is not read again; `found` is given all that is known then.
  [[nodiscard]] Task<void> measure(GroupDescription& group, const KnownUnread* known = nullptr, KnownUnread* found = nullptr);
  [[nodiscard]] Task<Answer<Unread>> unread(TopicId topic, PartitionIndex partition, Offset from, const KnownUnread* known = nullptr);
  /// Asks the replica of a partition, on its shard.
  template <class F>
  [[nodiscard]] Task<Answer<void>> ask_replica(PartitionId id, F question);
  void receive(PeerMessage message);
  /// `changed`: the topic whose entry differs: its partitions follow its configuration, or let nobody in any more.
  void set_catalog(std::shared_ptr<const cluster::Catalog> fresh, std::optional<TopicId> changed);

  void start_background();
  void begin_stop();
  void count_refusal(const Refusal& refusal) { ++counters.refusals[refusal.code]; }
  void refresh_window();
  [[nodiscard]] std::uint64_t window_bytes() const { return counters.producer_window_bytes; }
  [[nodiscard]] ShardStatus status() const;

 private:
  friend class ShardService;
  [[nodiscard]] Task<Answer<ProduceReply>> append(PartitionSlot& slot, ProduceRequest& request);
  [[nodiscard]] Task<void> fetch_for(ShardIndex reader, FetchRequest request, std::shared_ptr<RemoteWait> wait);
  [[nodiscard]] Task<void> cancel_there(ShardIndex owner, std::shared_ptr<RemoteWait> wait);
  [[nodiscard]] Task<void> open_all();
  [[nodiscard]] Task<void> retention_task();
  [[nodiscard]] Task<void> pressure_task();
  [[nodiscard]] Task<void> retention_sweep();
  void turn_away(PartitionSlot& slot);
};

template <class F>
Task<Answer<void>> ShardCore::ask_replica(PartitionId id, F question) {
  ShardCore& there = core_of(home(id));
  auto ask = [&there, id, &question]() -> Task<Answer<void>> {
    auto found = there.slot_for(id);
    if (!found) co_return std::unexpected(std::move(found).error());
    SlotUse slot{*std::move(found)};
    if (auto opened = co_await there.open(*slot); !opened) co_return opened;
    Result<void> answer = question(*slot->replicated);
    if (!answer) co_return std::unexpected(Refusal{std::move(answer).error()});
    co_return Answer<void>{};
  };
  co_return co_await port.call_on(there.index, std::move(ask));
}

[[nodiscard]] log::PartitionOptions log_options(const TopicConfig& config);
/// Refusals of the log in the words of this room.
[[nodiscard]] Refusal from_log(Error error);

/// An answer of a front end's call: refusals are counted by code.
template <class T>
[[nodiscard]] Answer<T> counted(ShardCore& core, Answer<T> answer) {
  if (!answer) core.count_refusal(answer.error());
  return answer;
}

/// On the shard `there`: `ask(*found)` of what `find(core of that shard)` answers (an Answer of a shared pointer). Both live until it is done.
template <class T, class Find, class Ask>
[[nodiscard]] Task<Answer<T>> ask_there(ShardCore& core, ShardIndex there, Find find, Ask ask) {
  ShardCore& other = core.core_of(there);
  auto on_shard = [&other, &find, &ask]() -> Task<Answer<T>> {
    auto found = co_await find(other);
    if (!found) co_return std::unexpected(std::move(found).error());
    auto kept = *std::move(found);
    co_return co_await ask(*kept);
  };
  co_return co_await core.port.call_on(there, std::move(on_shard));
}

/// A call of a front end: counted, and refused while stopping or when too many are under way.
class CallGuard {
 public:
  /// `kind`: a count of its own, which the limit on calls leaves out.
  explicit CallGuard(ShardCore& core, std::size_t ShardCore::* kind = nullptr) : core_{core}, kind_{kind} {
    ++core_.calls;
    if (kind_) ++(core_.*kind_);
  }
  CallGuard(const CallGuard&) = delete;
  CallGuard& operator=(const CallGuard&) = delete;
  ~CallGuard() {
    --core_.calls;
    if (kind_) --(core_.*kind_);
    if (core_.stopping && core_.calls == 0) core_.calls_changed.notify_all();
  }
  [[nodiscard]] Answer<void> admitted() const {
    if (core_.stopping || !core_.catalog) return refuse(Errc::shutting_down);
    if (!kind_ && core_.calls - core_.fetches > limits::kServiceCallsMax) return refuse(Errc::too_many, "calls under way on this shard");
    return {};
  }

 private:
  ShardCore& core_;
  std::size_t ShardCore::* kind_;
};

/// Runs `task(i)` for i in [from, to), at most `limit` at once; the first error stops further starts and is answered.
template <class F>
Task<Result<void>> for_each_bounded(std::int32_t from, std::int32_t to, std::size_t limit, F task) {
  struct State {
    std::int32_t next;
    std::optional<Error> error;
  } state{from, {}};
  auto worker = [&]() -> Task<void> {
    while (state.next < to && !state.error) {
      std::int32_t mine = state.next++;
      Result<void> done = co_await task(mine);
      if (!done && !state.error) state.error = std::move(done).error();
    }
  };
  TaskScope scope;
  for (std::size_t i = 0; i < limit && state.next < to; ++i) scope.spawn(worker());
  co_await scope.drain();
  if (state.error) co_return std::unexpected(std::move(*state.error));
  co_return Result<void>{};
}

}  // namespace tailrace::broker::service
