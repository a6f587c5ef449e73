#include "tests/crash/life.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/crc32c.h"
#include "codec/batch_builder.h"
#include "tests/support/lone_log.h"

namespace tailrace::broker::crash {

PartitionId partition_number(int number) {
  PartitionId id;
  id.topic.bytes[0] = 0xab;
  id.topic.bytes[15] = static_cast<std::uint8_t>(number / 2);  // two partitions a topic
  id.index = PartitionIndex{number};
  return id;
}

Life::Life(std::uint64_t seed, sim::DiskImage image, const Setup& setup, Oracle& oracle)
    : setup_{setup}, oracle_{oracle}, body_{std::make_unique<Body>(seed, std::move(image), setup.disk)}, random_{machine_.loop.stream("workload")},
      reader_{oracle.next_reader++}, time_base_{oracle.clock} {
  if (oracle.wall) machine_.loop.set_wall(*oracle.wall);
}

Life::~Life() {
  if (!ended_ && !disk().dead()) (void)disk().kill();
  end_life();
}

std::int64_t Life::now() const { return time_base_ + machine_.loop.now().time_since_epoch().count(); }

void Life::violation(std::string text) { oracle_.violation(std::move(text)); }

bool Life::start() {
  machine_.disk.on_start = nullptr;
  if (machine_.disk.visible_image().directories.empty()) {
    // The parent of a data directory is the operator's; it is there and durable.
    auto made = machine_.loop.run(machine_.disk.make_directory(kDataDirectory));
    auto synced = machine_.loop.run(machine_.disk.sync_directory("/"));
    if (!made || !*made || !synced || !*synced) return false;
  }
  auto directory = machine_.loop.run(log::DataDirectory::open(machine_.runtime, kDataDirectory, 1));
  if (!directory) {
    violation("opening the data directory hangs");
    return false;
  }
  if (!*directory) {
    error_ = directory->error();
    return false;
  }
  directory_ = std::move(**directory);
  auto dirty = machine_.loop.run(directory_->mark_dirty());
  if (!dirty || !*dirty) {
    error_ = dirty ? dirty->error() : Error{Errc::timeout, "mark_dirty hangs"};
    if (!dirty) violation("mark_dirty hangs");
    return false;
  }
  log::ShardLogOptions options;
  options.data_directory = kDataDirectory;
  options.directory_id = directory_->identity().directory_id;
  options.wal_file_bytes = setup_.wal_file_bytes;
  options.wal_files = setup_.wal_files;
  options.hot_tail_bytes = setup_.hot_tail_bytes;
  options.read_pool_bytes = 256 * limits::kKiB;
  options.pending_bytes_max = 1 * limits::kMiB;
  options.open_files_max = setup_.open_files_max;
  auto opened = machine_.loop.run(log::LoneShardLog::open(machine_.runtime, options));
  if (!opened) {
    violation("opening the shard log hangs");
    return false;
  }
  if (!*opened) {
    error_ = opened->error();
    return false;
  }
  log_ = std::move(**opened);
  return true;
}

bool Life::settle(Duration limit) {
  return machine_.loop.run_until([&] { return scope_.running() == 0; }, limit);
}

log::PartitionPtr Life::open(PartitionId id) {
  if (auto found = open_.find(id); found != open_.end()) return found->second;
  auto opened = machine_.loop.run(log_->open_partition(id, options()));
  if (!opened) violation(name_of(id) + ": opening hangs");
  if (!opened || !*opened) return nullptr;
  open_[id] = **opened;
  return **opened;
}

bool Life::create(PartitionId id) {
  create_later(id);
  return settle() && oracle_.partition(id).created;
}

void Life::create_later(PartitionId id) {
  auto& po = oracle_.partition(id);
  po.create_asked = true;
  scope_.spawn(create_partition(&po));
}

Task<void> Life::create_partition(PartitionOracle* po) {
  auto made = co_await log_->create(po->id(), options());
  if (!made) co_return;
  po->created = true;
  open_[po->id()] = *made;
}

void Life::remove_later(PartitionId id) {
  auto& po = oracle_.partition(id);
  po.remove_asked = true;
  oracle_.leave_history(po);
  open_.erase(id);
  scope_.spawn(remove_partition(&po));
}

Task<void> Life::remove_partition(PartitionOracle* po) {
  auto gone = co_await log_->remove(po->id());
  if (gone) po->removed = true;
}

Slice Life::make_batch(PartitionId id, const Shape& shape, std::vector<history::Value>& values) {
  codec::BatchBuilder builder{{.bytes_max = 1 * limits::kMiB}};
  auto process = static_cast<std::uint32_t>(shape.producer == kNoProducer ? 1 : shape.producer.value());
  std::vector<std::byte> value = shape.value;
  if (value.empty()) value.resize(std::max<std::size_t>(shape.value_bytes, 8));
  for (int i = 0; i < shape.records; ++i) {
    std::uint64_t counter = oracle_.next_counter++;
    Random filler{counter + 77};
    for (std::size_t at = 0; shape.value.empty() && at + 8 <= value.size(); at += 8) store_le(value.data() + at, filler.next());
    store_le(value.data(), counter);
    values.push_back({process, static_cast<std::uint32_t>(value.size()), counter, crc32c(value)});
    auto added = builder.add({.timestamp = machine_.loop.wall().time_since_epoch().count(), .value = Bytes{value}});
    TAILRACE_CHECK(added, "the batches of a test fit");
  }
  codec::ProducerStamp stamp;
  if (shape.producer != kNoProducer) {
    stamp = {shape.producer, ProducerEpoch{0}, oracle_.sequences[{shape.producer, id}]};
  }
  auto batch = builder.finish(stamp);
  TAILRACE_CHECK(batch, "the batches of a test can be built");
  return *batch;
}

bool Life::append_later(PartitionId id, Shape shape) {
  auto partition = open(id);
  if (!partition) return false;
  auto& po = oracle_.partition(id);
  if (po.truncation_open()) return false;  // replication truncates what it has, then appends
  auto stored = std::make_shared<StoredBatch>();
  Slice batch = make_batch(id, shape, stored->values);
  auto header = read_batch_header(batch.bytes(), 1 * limits::kMiB);
  TAILRACE_CHECK(header, "a built batch has a header");
  if (auto verdict = partition->judge(*header); verdict.answer != log::ProducerAnswer::accept) {
    violation(fmt::format("{}: a new batch of producer {} with sequence {} is judged {}", name_of(id), shape.producer.value(), header->base_sequence,
                          static_cast<int>(verdict.answer)));
    return false;
  }
  std::int64_t began = now();
  stored->append_time = machine_.loop.wall();
  Offset expected = partition->log_end();
  auto appended = partition->append(batch, *header, stored->append_time);
  if (!appended) return false;
  if (appended->base_offset != expected || appended->next_offset != partition->log_end()) {
    violation(fmt::format("{}: appended at {}, but the end was {}", name_of(id), appended->base_offset.value(), expected.value()));
  }
  auto assigned = read_batch_header(batch.bytes(), 1 * limits::kMiB);
  stored->header = *assigned;
  stored->bytes.assign(batch.bytes().begin(), batch.bytes().end());
  if (shape.producer != kNoProducer) oracle_.sequences[{shape.producer, id}] += shape.records;
  stored->event = oracle_.history.send(stored->values.front().process, began, po.key(), stored->values, true);
  std::uint64_t number = po.append(stored);
  scope_.spawn(await_commit(&po, partition, number, stored));
  return true;
}

Task<void> Life::await_commit(PartitionOracle* po, log::PartitionPtr partition, std::uint64_t number, BatchPtr batch) {
  auto answer = co_await partition->committed(batch->next());
  if (!answer) co_return;
  if (disk().dead()) co_return;  // the process is gone: nobody hears this answer
  auto& last = last_answered_[po->id()];
  if (number < last && !po->outside_history()) violation(fmt::format("{}: answered offset {} after a later one", name_of(po->id()), batch->base().value()));
  last = std::max(last, number);
  if (partition->high_watermark() < batch->next() && !po->outside_history()) {
    violation(fmt::format("{}: acknowledged up to {} above the high watermark {}", name_of(po->id()), batch->next().value(), partition->high_watermark().value()));
  }
  po->settle(number);
  oracle_.history.sent(batch->event, history::Type::ok, now(), batch->base().value());
}

bool Life::append(PartitionId id, Shape shape) {
  auto& po = oracle_.partition(id);
  return append_later(id, shape) && settle() && po.open_operations() == 0;
}

void Life::truncate_later(PartitionId id, Offset end) {
  auto partition = open(id);
  if (!partition) return;
  scope_.spawn(truncate(&oracle_.partition(id), partition, end));
}

Task<void> Life::truncate(PartitionOracle* po, log::PartitionPtr partition, Offset end) {
  oracle_.leave_history(*po);
  std::uint64_t number = po->truncate(end);
  auto clients_start_anew = [&] {  // from what is left
    for (auto& [who, sequence] : oracle_.sequences) {
      if (who.second != po->id()) continue;
      sequence = 0;
      for (const auto& batch : po->asked()) {
        if (batch->header.producer_id == who.first) sequence = batch->header.base_sequence + batch->header.record_count;
      }
    }
  };
  clients_start_anew();
  auto done = co_await partition->truncate_suffix({end, 0});
  if (disk().dead()) co_return;
  if (done) {
    po->settle(number);
  } else if (done.error().code == Errc::offset_out_of_range || done.error().code == Errc::not_leader || done.error().code == Errc::corrupt) {
    po->abort(number);
    clients_start_anew();
  }
}

void Life::advance_start_later(PartitionId id, Offset start) {
  auto partition = open(id);
  if (!partition) return;
  scope_.spawn(advance_start(&oracle_.partition(id), partition, start));
}

Task<void> Life::advance_start(PartitionOracle* po, log::PartitionPtr partition, Offset start) {
  po->start_asked = std::max(po->start_asked, start);
  std::int64_t began = now();
  auto done = co_await log::lone(*partition).advance_log_start(start);
  if (!done || disk().dead()) co_return;
  po->start = std::max(po->start, start);
  oracle_.history.end(oracle_.next_reader++, began, now(), po->key(), partition->high_watermark().value(), partition->log_start().value());
}

void Life::hard_state_later(PartitionId id, LeaderEpoch term, NodeId vote) {
  auto partition = open(id);
  if (!partition) return;
  scope_.spawn(set_hard_state(&oracle_.partition(id), partition, {term, vote}));
}

Task<void> Life::set_hard_state(PartitionOracle* po, log::PartitionPtr partition, HardState state) {
  auto done = co_await log::lone(*partition).set_hard_state(state.term, *state.vote);
  if (!done || disk().dead()) co_return;
  if (state.term >= po->hard.term) po->hard = state;
}

void Life::start_term_later(PartitionId id, LeaderEpoch term) {
  auto partition = open(id);
  if (!partition) return;
  scope_.spawn(start_term(&oracle_.partition(id), partition, term));
}

Task<void> Life::start_term(PartitionOracle*, log::PartitionPtr partition, LeaderEpoch term) {
  (void)co_await log::lone(*partition).start_term(term);
}

void Life::retention_later(PartitionId id) {
  auto partition = open(id);
  if (!partition) return;
  scope_.spawn(enforce_retention(&oracle_.partition(id), partition));
}

Task<void> Life::enforce_retention(PartitionOracle* po, log::PartitionPtr partition) {
  po->start_asked = std::max(po->start_asked, partition->high_watermark());
  auto done = co_await log::lone(*partition).enforce_retention(machine_.loop.wall());
  if (done && !disk().dead()) po->start = std::max(po->start, done->log_start);
}

void Life::read_later(PartitionId id, Offset from) {
  auto partition = open(id);
  if (partition) scope_.spawn(read(&oracle_.partition(id), partition, from, oracle_.next_reader++, false));
}

void Life::tail_later(PartitionId id) {
  auto partition = open(id);
  if (!partition) return;
  auto [at, fresh] = tails_.try_emplace(id, partition->log_start());
  scope_.spawn(read(&oracle_.partition(id), partition, at->second, reader_, true));
}

Task<void> Life::read(PartitionOracle* po, log::PartitionPtr partition, Offset from, std::uint32_t process, bool tail) {
  std::int64_t began = now();
  auto result = co_await partition->read(from, {.bytes_max = 16 * limits::kKiB});
  if (disk().dead() || !result) co_return;
  std::vector<history::History::Read> reads;
  Offset expected = from;
  for (const Slice& slice : result->batches) {
    auto header = read_batch_header(slice.bytes(), 1 * limits::kMiB);
    BatchPtr known = header ? po->known(header->base_offset, slice.bytes()) : nullptr;
    if (!known) {
      if (!po->outside_history()) violation(fmt::format("{}: a reader was given a batch at {} that nobody appended there", name_of(po->id()), expected.value()));
      co_return;
    }
    if (known->base() > expected) violation(fmt::format("{}: a reader was given {} where {} comes next", name_of(po->id()), known->base().value(), expected.value()));
    for (std::size_t i = 0; i < known->values.size(); ++i) {
      std::int64_t offset = known->base().value() + static_cast<std::int64_t>(i);
      if (offset >= from.value()) reads.push_back({offset, known->values[i]});
    }
    expected = known->next();
  }
  if (result->next != expected) violation(fmt::format("{}: a read of [{}, {}) says go on at {}", name_of(po->id()), from.value(), expected.value(), result->next.value()));
  if (result->high_watermark < expected) violation(fmt::format("{}: a reader was given {} above the high watermark {}", name_of(po->id()), expected.value(), result->high_watermark.value()));
  po->settle_to(expected);  // what a consumer has seen must not vanish
  if (po->outside_history()) co_return;
  if (tail) {
    auto& at = tails_[po->id()];
    if (at != from) co_return;  // another tail read was faster
    at = expected;
  }
  if (!reads.empty()) oracle_.history.poll(process, began, now(), po->key(), reads);
}

void Life::note_watermarks() {
  for (auto& [id, partition] : open_) {
    if (auto* po = oracle_.find(id); po != nullptr && !po->remove_asked) po->settle_to(partition->high_watermark());
  }
}

sim::DiskImage Life::power_cut(const sim::CrashPlan& plan) {
  note_watermarks();
  sim::DiskImage image = disk().crash(plan);
  end_life();
  return image;
}

sim::DiskImage Life::image_now(const sim::CrashPlan& plan) {
  note_watermarks();
  return disk().crash_image(plan);
}

sim::DiskImage Life::kill() {
  note_watermarks();
  sim::DiskImage image = disk().kill();
  end_life();
  return image;
}

sim::DiskImage Life::stop() {
  settle();
  note_watermarks();
  if (!machine_.loop.run(log_->close())) {
    violation("a clean stop hangs");
    sim::DiskImage image = disk().kill();
    end_life();
    return image;
  }
  auto marked = machine_.loop.run(directory_->mark_clean());
  if (!marked) violation("mark_clean hangs");
  sim::DiskImage image = disk().crash_image(sim::CrashPlan::lose_all());
  open_.clear();
  log_.reset();
  end_life();
  return image;
}

void Life::end_life() {
  if (ended_) return;
  ended_ = true;
  for (const auto& broken : disk().violations()) violation(broken);
  oracle_.clock = now() + 1'000'000'000;
  oracle_.wall = machine_.loop.wall() + 1s;
  bool closed = !log_ || machine_.loop.run(log_->close());
  if (!closed) violation("closing after a power cut hangs");
  bool settled = settle();
  if (!settled) violation(fmt::format("{} calls were never answered after the log was closed", scope_.running()));
  if (!closed || !settled) {
    sim::keep_forever(body_.release());
    return;
  }
  open_.clear();
  log_.reset();
  directory_.reset();
}

}  // namespace tailrace::broker::crash
