// The senders' side of a publisher: from send() to a batch that the loop may take.
#include <algorithm>

#include "model/limits.h"
#include "model/topic.h"
#include "src/partitioner.h"
#include "src/publisher.h"

namespace tailrace::inline v1::detail {
namespace {

constexpr std::size_t kChargeFirst = 1024;       // of the budget, when a batch is opened; then doubled up to
constexpr std::size_t kChargeMax = 16 * 1024;
constexpr std::size_t kWaitingOverhead = 256;    // what a record costs that waits for its topic to be known

std::int64_t now_ms() {
  return std::chrono::duration_cast<Milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}
std::optional<broker::Bytes> bytes_of(const std::optional<std::string_view>& text) {
  if (!text) return std::nullopt;
  return broker::as_bytes(*text);
}
broker::Compression wire_compression(Compression compression) {
  switch (compression) {
    case Compression::none: return broker::Compression::none;
    case Compression::lz4: return broker::Compression::lz4;
    case Compression::zstd: return broker::Compression::zstd;
  }
  return broker::Compression::none;
}
std::size_t owned_bytes(const RecordView& record) {
  std::size_t bytes = kWaitingOverhead + record.key.value_or("").size() + record.value.value_or("").size();
  for (const Header& header : record.headers) bytes += header.key.size() + header.value.value_or("").size() + sizeof(Header);
  return bytes;
}

}  // namespace

Publisher::Publisher(std::shared_ptr<Engine> engine, ProducerOptions options)
    : engine_{std::move(engine)}, options_{std::move(options)},
      sticky_only_{options_.by && options_.by.target<StickyPartitioner>() != nullptr},
      murmur_{!options_.by || options_.by.target<Murmur2Partitioner>() != nullptr}, wake_timer_{engine_->loop()},
      sweep_timer_{engine_->loop()}, close_timer_{engine_->loop()} {}
Publisher::~Publisher() = default;

void Publisher::start() {
  engine_->add(shared_from_this());
  engine_->post([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self || self->closed_) return;
    self->listening_ = true;
    self->engine_->link().add_listener(*self);
  });
}

Task<Receipt> Publisher::send(const RecordView& record) {
  Task<Receipt> handle;
  auto added = append(record, {.kind = Want::Kind::handle}, Mode::as_configured, &handle);
  if (!added) return Single<Receipt>::done(engine_->callbacks(), std::unexpected(std::move(added).error()));
  return handle;
}

Result<Task<Receipt>> Publisher::try_send(const RecordView& record) {
  Task<Receipt> handle;
  auto added = append(record, {.kind = Want::Kind::handle}, Mode::never_wait, &handle);
  if (!added) return std::unexpected(std::move(added).error());
  return handle;
}

Result<void> Publisher::post(const RecordView& record, std::uint64_t tag) {
  return append(record, {.kind = Want::Kind::tag, .tag = tag}, Mode::as_configured, nullptr);
}

Task<std::vector<Receipt>> Publisher::send_batch(std::span<const Record> records) {
  if (records.empty()) return Single<std::vector<Receipt>>::done(engine_->callbacks(), std::vector<Receipt>{});
  auto many = std::make_shared<ManyReceipts>(engine_->callbacks(), records.size());
  for (std::uint32_t i = 0; i < records.size(); ++i) {
    auto added = append(RecordView{records[i]}, {.kind = Want::Kind::sink, .slot = i, .sink = many}, Mode::as_configured, nullptr);
    if (!added) many->settle(i, std::unexpected(std::move(added).error()));
  }
  return many->task();
}

Result<void> Publisher::append(const RecordView& record, Want want, Mode mode, Task<Receipt>* handle) {
  bool may_wait = mode == Mode::as_configured && !engine_->loop().on_loop_thread();
  Result<bool> added = try_append(record, want, may_wait, handle);
  if (!added) return std::unexpected(std::move(added).error());
  if (*added) return {};
  auto full = [&] {
    return std::unexpected(make_error(Errc::queue_full, "memory_limit is " + std::to_string(engine_->budget().limit()) +
                                                            " bytes, all held by records that are not acknowledged"));
  };
  if (!may_wait || options_.when_full == WhenFull::fail) return full();
  auto deadline = Clock::now() + options_.delivery_timeout;
  while (true) {
    auto ticket = engine_->budget().ticket();
    added = try_append(record, want, may_wait, handle);
    if (!added || *added) {
      engine_->budget().forget(ticket);
      if (!added) return std::unexpected(std::move(added).error());
      return {};
    }
    {
      Lock lock{mutex_};
      pressure_ = true;  // batches that linger hold the memory this sender waits for
      for (auto& [name, topic] : topics_) {
        for (auto& partition : topic->partitions) {
          if (partition->open) schedule(*partition);
        }
      }
    }
    if (!engine_->budget().wait(ticket, deadline)) return full();
  }
}

Result<bool> Publisher::try_append(const RecordView& record, Want& want, bool may_wait, Task<Receipt>* handle) {
  std::optional<std::uint32_t> chosen;
  while (true) {
    Lock lock{mutex_};
    if (closing_ || engine_->closing()) return std::unexpected(make_error(Errc::closed, "the producer is closed"));
    // Inside a callback waiting for other callbacks would be waiting for oneself.
    if (engine_->callbacks()->backlog() > kCallbackBacklogMax && !engine_->callbacks()->inside()) return false;
    auto topic = find_topic(lock, record.topic);
    if (!topic) return std::unexpected(std::move(topic).error());
    std::int64_t time = record.time ? record.time->time_since_epoch().count() : now_ms();
    Topic& to = **topic;
    bool asks_user = !record.partition && !murmur_ && !sticky_only_;
    if (to.partitions.empty() && asks_user) {
      // The user's partitioner needs the count and may not run on the loop, so this sender waits for the topic.
      if (!may_wait) return false;
      if (auto known = wait_known(lock, to, Clock::now() + options_.delivery_timeout); !known) return std::unexpected(std::move(known).error());
      continue;
    }
    if (to.partitions.empty()) {
      std::size_t bytes = owned_bytes(record);
      if (!engine_->budget().try_take(bytes)) return false;
      WaitingRecord waiting{.charged = bytes, .number = next_number_++, .deadline = Clock::now() + options_.delivery_timeout, .time = time};
      waiting.record.topic = record.topic;
      if (record.key) waiting.record.key = *record.key;
      if (record.value) waiting.record.value = *record.value;
      waiting.record.headers.assign(record.headers.begin(), record.headers.end());
      waiting.record.partition = record.partition;
      if (want.kind == Want::Kind::handle) {
        auto single = std::make_shared<SingleReceipt>(engine_->callbacks());
        *handle = single->task();
        waiting.want = {.kind = Want::Kind::sink, .slot = 0, .sink = std::move(single)};
      } else {
        waiting.want = want;
      }
      open_numbers_.insert(waiting.number);
      ++pending_;
      to.waiting.push_back(std::move(waiting));
      want_open(to);
      return true;
    }
    if (asks_user && !chosen) {
      // The user's partitioner runs without our lock: it may do anything, also send.
      auto count = static_cast<std::uint32_t>(to.partitions.size());
      lock.unlock();
      chosen = options_.by(record, count);
      if (*chosen >= count) {
        return std::unexpected(make_error(Errc::invalid_argument, "the partitioner chose " + std::to_string(*chosen) + " of " + std::to_string(count) + " partitions"));
      }
      continue;
    }
    auto index = choose_partition(to, record, chosen);
    if (!index) return std::unexpected(std::move(index).error());
    PartitionQueue& partition = *to.partitions[*index];
    return append_to(partition, record, time, want, handle, 0, 0, std::nullopt);
  }
}

void Publisher::want_open(Topic& topic) {
  if (topic.wants_open) return;
  topic.wants_open = true;
  topic.open_error.reset();
  to_open_.push_back(&topic);
  wake_loop();
}

Result<void> Publisher::wait_known(Lock& lock, Topic& topic, TimePoint deadline) {
  want_open(topic);
  settled_.wait_until(lock, deadline, [&] { return !topic.partitions.empty() || closing_ || topic.open_error; });
  if (closing_) return std::unexpected(make_error(Errc::closed, "the producer is closed"));
  if (!topic.partitions.empty()) return {};
  if (topic.open_error) return std::unexpected(*topic.open_error);
  return std::unexpected(make_error(Errc::timeout, "the partitions of " + topic.name + " are not known yet"));
}

Result<Topic*> Publisher::find_topic(Lock&, std::string_view name) {
  if (last_topic_ && last_topic_->name == name) return last_topic_;
  auto at = topics_.find(name);
  if (at == topics_.end()) {
    if (auto valid = broker::check_topic_name(name); !valid) return std::unexpected(to_error(valid.error()));
    at = topics_.emplace(std::string{name}, std::make_unique<Topic>(*this, std::string{name})).first;
  }
  last_topic_ = at->second.get();
  return last_topic_;
}

Result<std::uint32_t> Publisher::choose_partition(Topic& topic, const RecordView& record, std::optional<std::uint32_t> chosen) {
  auto count = static_cast<std::uint32_t>(topic.partitions.size());
  if (record.partition) {
    if (*record.partition < 0 || static_cast<std::uint32_t>(*record.partition) >= count) {
      topic.refresh_at = {};  // perhaps it has grown: asked for with the next sweep
      wake_loop();
      return std::unexpected(make_error(Errc::no_such_partition, topic.name + " has " + std::to_string(count) + " partitions, not one numbered " +
                                                                     std::to_string(*record.partition)));
    }
    return static_cast<std::uint32_t>(*record.partition);
  }
  if (chosen && *chosen < count) return *chosen;
  if (murmur_ && record.key) return murmur2_partition(*record.key, count);
  // Sticks while the partition's batch is open; when it was taken or filled, the next partition gets the next one.
  if (topic.sticky >= count || !topic.partitions[topic.sticky]->open) topic.sticky = (topic.sticky + 1) % count;
  return topic.sticky;
}

BatchPtr Publisher::new_batch(Topic& topic, std::uint64_t number, std::optional<TimePoint> deadline) {
  auto now = Clock::now();
  broker::codec::BatchOptions options{.compression = wire_compression(options_.compression), .bytes_max = topic.batch_bytes_max};
  auto batch = std::make_unique<OutgoingBatch>(options, number != 0 ? number : next_number_++, now, deadline.value_or(now + options_.delivery_timeout));
  open_numbers_.insert(batch->number);
  return batch;
}

void Publisher::close_open(PartitionQueue& partition) { partition.full.push_back(std::move(partition.open)); }

Result<bool> Publisher::append_to(PartitionQueue& partition, const RecordView& record, std::int64_t time, Want& want, Task<Receipt>* handle,
                                  std::size_t already_charged, std::uint64_t number, std::optional<TimePoint> deadline) {
  Topic& topic = partition.topic;
  static thread_local std::vector<broker::codec::HeaderView> headers;
  headers.clear();
  for (const Header& header : record.headers) headers.push_back({header.key, header.value ? std::optional{broker::as_bytes(*header.value)} : std::nullopt});
  broker::codec::RecordInput input{.timestamp = time, .key = bytes_of(record.key), .value = bytes_of(record.value), .headers = headers};

  std::size_t threshold = std::min(options_.batch_bytes, topic.batch_bytes_max);
  bool filled = false;
  if (partition.open && (partition.open->builder.bytes_with(input) > threshold || !partition.open->builder.fits(input))) {
    close_open(partition);
    filled = true;
  }
  bool opened = !partition.open;
  BatchPtr fresh;
  if (opened) fresh = new_batch(topic, number, deadline);
  OutgoingBatch& batch = opened ? *fresh : *partition.open;
  std::size_t after = batch.builder.bytes_with(input);
  std::size_t charge = 0;
  if (after > batch.charged + already_charged) {
    charge = std::max(after - batch.charged - already_charged, std::clamp(batch.charged, kChargeFirst, kChargeMax));
    if (after <= topic.batch_bytes_max && !engine_->budget().try_take(charge)) {
      if (opened) open_numbers_.erase(open_numbers_.find(fresh->number));
      if (filled) schedule(partition);
      return false;
    }
  }
  if (auto added = batch.builder.add(input); !added) {
    if (after <= topic.batch_bytes_max) engine_->budget().give_back(charge);
    if (opened) open_numbers_.erase(open_numbers_.find(fresh->number));
    if (filled) schedule(partition);
    Error error = to_error(added.error());
    error.at["topic"] = topic.name;
    error.at["message_bytes_max"] = std::to_string(topic.batch_bytes_max);
    return std::unexpected(std::move(error));
  }
  batch.charged += charge + already_charged;
  this->want(batch, want, handle);
  batch.times.push_back(time);
  ++pending_;
  if (opened) partition.open = std::move(fresh);
  if (partition.open->builder.bytes() >= threshold) {
    close_open(partition);
    filled = true;
  }
  if (filled || partition.busy == 0) schedule(partition);
  return true;
}

void Publisher::want(OutgoingBatch& batch, Want& want, Task<Receipt>* handle) {
  std::uint32_t index = batch.count();
  switch (want.kind) {
    case Want::Kind::nothing: return;
    case Want::Kind::handle:
      if (!batch.completion) batch.completion = std::make_shared<BatchCompletion>(engine_->callbacks());
      *handle = Task<Receipt>{batch.completion, index};
      return;
    case Want::Kind::tag: batch.tags.push_back({index, want.tag}); return;
    case Want::Kind::sink: batch.forwards.push_back({index, want.slot, want.sink}); return;
  }
}

Task<std::vector<Receipt>> Publisher::send_if_end(std::string_view topic_name, std::int32_t partition_index, std::int64_t end_offset,
                                                  std::span<const Record> records) {
  using Many = Single<std::vector<Receipt>>;
  auto refuse = [&](Error error) { return Many::done(engine_->callbacks(), std::unexpected(std::move(error))); };
  if (records.empty()) return refuse(make_error(Errc::invalid_argument, "no records"));
  if (end_offset < 0) return refuse(make_error(Errc::invalid_argument, "end_offset is below 0"));
  // The batch limit must be known before the batch is built: all of its records go together or not at all.
  auto give_up = Clock::now() + options_.delivery_timeout;
  Lock lock{mutex_};
  if (closing_ || engine_->closing()) return refuse(make_error(Errc::closed, "the producer is closed"));
  auto topic = find_topic(lock, topic_name);
  if (!topic) return refuse(topic.error());
  Topic& to = **topic;
  auto many = std::make_shared<ManyReceipts>(engine_->callbacks(), records.size());
  if (to.partitions.empty()) {
    if (engine_->loop().on_loop_thread()) return refuse(make_error(Errc::queue_full, "the topic is not known yet, and the I/O thread cannot wait for it"));
    if (auto known = wait_known(lock, to, give_up); !known) return refuse(known.error());
  }
  if (partition_index < 0 || static_cast<std::size_t>(partition_index) >= to.partitions.size()) {
    return refuse(make_error(Errc::no_such_partition, to.name + " has no partition " + std::to_string(partition_index)));
  }
  PartitionQueue& partition = *to.partitions[static_cast<std::size_t>(partition_index)];
  BatchPtr batch = new_batch(to, 0, give_up);
  batch->expected_end = end_offset;
  auto drop = [&](Error error) {
    open_numbers_.erase(open_numbers_.find(batch->number));
    engine_->budget().give_back(batch->charged);
    return refuse(std::move(error));
  };
  for (std::uint32_t i = 0; i < records.size(); ++i) {
    RecordView record{records[i]};
    std::vector<broker::codec::HeaderView> headers;
    for (const Header& header : record.headers) headers.push_back({header.key, header.value ? std::optional{broker::as_bytes(*header.value)} : std::nullopt});
    std::int64_t time = record.time ? record.time->time_since_epoch().count() : now_ms();
    broker::codec::RecordInput input{.timestamp = time, .key = bytes_of(record.key), .value = bytes_of(record.value), .headers = headers};
    std::size_t charge = batch->builder.bytes_with(input) - batch->charged;
    if (!engine_->budget().try_take(charge)) return drop(make_error(Errc::queue_full, "memory_limit"));
    batch->charged += charge;
    if (auto added = batch->builder.add(input); !added) return drop(to_error(added.error()));
    Want want{.kind = Want::Kind::sink, .slot = i, .sink = many};
    this->want(*batch, want, nullptr);
    batch->times.push_back(time);
  }
  pending_ += records.size();
  if (partition.open) close_open(partition);
  partition.full.push_back(std::move(batch));
  schedule(partition);
  return many->task();
}

void Publisher::schedule(PartitionQueue& partition) {
  if (partition.scheduled) return;
  partition.scheduled = true;
  ready_.push_back(&partition);
  wake_loop();
}

void Publisher::wake_loop() {
  if (pump_posted_) return;
  pump_posted_ = true;
  engine_->post([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->pump();
  });
}

void Publisher::admit_waiting(Topic& topic, std::vector<std::pair<WaitingRecord, Error>>& failed) {
  while (!topic.waiting.empty()) {
    WaitingRecord waiting = std::move(topic.waiting.front());
    topic.waiting.pop_front();
    RecordView view{waiting.record};
    open_numbers_.erase(open_numbers_.find(waiting.number));
    --pending_;
    auto refuse = [&](Error error) {
      open_numbers_.insert(waiting.number);
      ++pending_;
      failed.emplace_back(std::move(waiting), std::move(error));
    };
    auto index = choose_partition(topic, view, std::nullopt);
    if (!index) {
      refuse(std::move(index).error());
      continue;
    }
    auto added = append_to(*topic.partitions[*index], view, waiting.time, waiting.want, nullptr, waiting.charged, waiting.number, waiting.deadline);
    if (!added) {
      refuse(std::move(added).error());
    } else if (!*added) {
      refuse(make_error(Errc::queue_full, "memory_limit"));
    }
  }
}

std::optional<Durability> Publisher::durability(std::string_view topic) const {
  std::lock_guard lock{mutex_};
  auto at = topics_.find(topic);
  return at == topics_.end() ? std::nullopt : at->second->durability;
}
std::uint64_t Publisher::pending() const {
  std::lock_guard lock{mutex_};
  return pending_;
}
bool Publisher::closed() const {
  std::lock_guard lock{mutex_};
  return closing_;
}

Result<void> Publisher::flush(Milliseconds deadline) {
  if (engine_->loop().on_loop_thread()) return std::unexpected(make_error(Errc::invalid_argument, "the executor runs callbacks on the I/O thread, which cannot wait for itself"));
  auto until = Clock::now() + deadline;
  Lock lock{mutex_};
  std::uint64_t last = next_number_ - 1;
  ++flushing_;
  for (auto& [name, topic] : topics_) {
    for (auto& partition : topic->partitions) {
      if (partition->open) {
        close_open(*partition);
        schedule(*partition);
      }
    }
  }
  bool done = settled_.wait_until(lock, until, [&] { return open_numbers_.empty() || *open_numbers_.begin() > last; });
  --flushing_;
  if (!done) return std::unexpected(make_error(Errc::timeout, std::to_string(pending_) + " records are not acknowledged yet"));
  return {};
}

}  // namespace tailrace::inline v1::detail
