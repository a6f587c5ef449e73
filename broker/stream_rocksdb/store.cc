#include "stream_rocksdb/store.h"

#include <fmt/format.h>
#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>

#include <bit>
#include <cstring>

#include "base/bytes.h"
#include "base/log.h"
#include "base/planted.h"

namespace tailrace::broker::stream {
namespace {

constexpr char kReached = 'r', kHead = 'h', kEvents = 'e';
constexpr std::size_t kHeadBytes = 32, kPlaceBytes = 12;

template <class T>
void put_be(std::string& out, T value) {
  for (std::size_t i = sizeof(T); i-- > 0;) out.push_back(static_cast<char>(static_cast<std::make_unsigned_t<T>>(value) >> (8 * i)));
}
template <class T>
T get_be(const char* at) {
  std::make_unsigned_t<T> out = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) out = static_cast<std::make_unsigned_t<T>>(out << 8U | static_cast<std::uint8_t>(at[i]));
  return static_cast<T>(out);
}

std::string partition_prefix(char kind, const PartitionId& partition) {
  std::string out(1, kind);
  out.append(reinterpret_cast<const char*>(partition.topic.bytes.data()), partition.topic.bytes.size());
  put_be(out, partition.index.value());
  return out;
}

std::string encode(const Head& head) {
  std::string out;
  put_be(out, head.last);
  put_be(out, head.first);
  put_be(out, head.offset.value());
  put_be(out, head.time_ms);
  return out;
}
Result<Head> decode_head(const rocksdb::Slice& from) {
  if (from.size() != kHeadBytes) return fail(Errc::corrupt, "stream index: a head");
  Head head{get_be<std::int64_t>(from.data()), get_be<std::int64_t>(from.data() + 8), Offset{get_be<std::int64_t>(from.data() + 16)}, get_be<std::int64_t>(from.data() + 24)};
  bool sane = head.last >= kNoVersion && head.first >= 0 && head.first <= head.last + 1;
  if (!sane) return fail(Errc::corrupt, "stream index: a head");
  return head;
}
std::string encode(const Place& place) {
  std::string out;
  put_be(out, place.offset.value());
  put_be(out, place.count);
  return out;
}
Result<Place> decode_place(Version first, const rocksdb::Slice& from) {
  if (from.size() != kPlaceBytes) return fail(Errc::corrupt, "stream index: a place");
  Place place{first, get_be<std::int32_t>(from.data() + 8), Offset{get_be<std::int64_t>(from.data())}};
  if (place.count <= 0 || place.offset < Offset{0} || first < 0) return fail(Errc::corrupt, "stream index: a place");
  return place;
}

Error error_of(const rocksdb::Status& status) { return {status.IsCorruption() ? Errc::corrupt : Errc::io_error, "stream index: " + status.ToString()}; }

}  // namespace

struct RocksStore::Database {
  rocksdb::Options options;
  std::unique_ptr<rocksdb::DB> db;
};

/// Runs on a thread that may block; refers to nothing of the shard.
class RocksStore::Index final : public StreamIndex {
 public:
  Index(rocksdb::DB& db, io::BlockingCalls& calls, const PartitionId& partition)
      : db_{db}, calls_{calls}, reached_key_{partition_prefix(kReached, partition)}, heads_{partition_prefix(kHead, partition)}, events_{partition_prefix(kEvents, partition)} {}

  Task<Result<Offset>> reached() override {
    return io::blocking(calls_, [this]() -> Result<Offset> {
      std::string value;
      rocksdb::Status status = db_.Get({}, reached_key_, &value);
      if (status.IsNotFound()) return Offset{0};
      if (!status.ok()) return std::unexpected(error_of(status));
      if (value.size() != 8 || get_be<std::int64_t>(value.data()) < 0) return fail(Errc::corrupt, "stream index: how far it is");
      return Offset{get_be<std::int64_t>(value.data())};
    });
  }

  Task<Result<Head>> head(std::string stream) override {
    return io::blocking(calls_, [this, stream = std::move(stream)]() -> Result<Head> {
      rocksdb::PinnableSlice value;
      rocksdb::Status status = db_.Get({}, db_.DefaultColumnFamily(), heads_ + stream, &value);
      if (status.IsNotFound()) return Head{};
      if (!status.ok()) return std::unexpected(error_of(status));
      return decode_head(value);
    });
  }

  Task<Result<std::vector<Place>>> places(std::string stream, Version from, bool backwards, std::size_t max) override {
    return io::blocking(calls_, [this, stream = std::move(stream), from, backwards, max]() -> Result<std::vector<Place>> {
      std::string prefix = events_ + stream + '\0';
      std::string start = prefix;
      put_be(start, std::max<Version>(from, 0));
      std::vector<Place> out;
      if (from < 0 && backwards) return out;
      std::unique_ptr<rocksdb::Iterator> at{db_.NewIterator({})};
      auto here = [&] { return at->Valid() && at->key().starts_with(prefix) && at->key().size() == prefix.size() + 8; };
      auto place = [&] { return decode_place(get_be<Version>(at->key().data() + prefix.size()), at->value()); };
      at->SeekForPrev(start);  // the batch that holds it begins at or before it
      if (!backwards) {
        if (!here()) {
          at->Seek(prefix);
        } else {
          TAILRACE_TRY(Place first, place());
          if (first.first + first.count <= from) at->Next();
        }
      }
      for (; here() && out.size() < max; backwards ? at->Prev() : at->Next()) {
        TAILRACE_TRY(Place next, place());
        out.push_back(next);
      }
      if (!at->status().ok()) return std::unexpected(error_of(at->status()));
      return out;
    });
  }

  Task<Result<std::vector<Listed>>> list(std::string prefix, std::string after, std::size_t max) override {
    return io::blocking(calls_, [this, prefix = std::move(prefix), after = std::move(after), max]() -> Result<std::vector<Listed>> {
      std::string wanted = heads_ + prefix;
      std::string start = after.empty() ? wanted : std::max(wanted, heads_ + after + '\0');  // the next name in order
      std::vector<Listed> out;
      std::unique_ptr<rocksdb::Iterator> at{db_.NewIterator({})};
      for (at->Seek(start); at->Valid() && at->key().starts_with(wanted) && out.size() < max; at->Next()) {
        TAILRACE_TRY(Head head, decode_head(at->value()));
        out.push_back({std::string{at->key().data() + heads_.size(), at->key().size() - heads_.size()}, head});
      }
      if (!at->status().ok()) return std::unexpected(error_of(at->status()));
      return out;
    });
  }

  Task<Result<void>> apply(std::vector<Ledger::Update> updates, Offset reached) override {
    return io::blocking(calls_, [this, updates = std::move(updates), reached]() -> Result<void> {
      rocksdb::WriteBatch batch;
      rocksdb::WriteOptions unlogged;
      unlogged.disableWAL = true;
      if (planted(PlantedBug::stream_index_ahead)) {
        put_reached(batch, reached);
        if (auto status = db_.Write(unlogged, &batch); status.ok()) status = db_.Flush({});
        batch.Clear();
      }
      std::string key;
      for (const Ledger::Update& update : updates) {
        key = heads_ + update.entry.stream;
        batch.Put(key, encode(update.head));
        if (update.entry.kind != Entry::Kind::events) continue;
        key = events_ + update.entry.stream + '\0';
        put_be(key, update.first_version);
        batch.Put(key, encode(Place{update.first_version, update.entry.count, update.entry.base}));
      }
      put_reached(batch, reached);
      rocksdb::Status status = db_.Write(unlogged, &batch);
      if (!status.ok()) return std::unexpected(error_of(status));
      return {};
    });
  }

  Task<Result<void>> clear() override {
    return io::blocking(calls_, [this]() -> Result<void> {
      rocksdb::WriteBatch batch;
      for (const std::string* prefix : {&reached_key_, &heads_, &events_}) {
        std::string end = *prefix;  // the keys that begin with it end before the next value of its last four bytes
        for (std::size_t i = end.size(); i-- > 0 && ++end[i] == '\0';) {}
        batch.DeleteRange(*prefix, end);
      }
      rocksdb::WriteOptions unlogged;
      unlogged.disableWAL = true;
      rocksdb::Status status = db_.Write(unlogged, &batch);
      // On disk before anything is filled in: what is being replaced may be wrong, and must not come back with a crash.
      if (status.ok()) status = db_.Flush({});
      if (!status.ok()) return std::unexpected(error_of(status));
      return {};
    });
  }

 private:
  void put_reached(rocksdb::WriteBatch& batch, Offset reached) const {
    std::string value;
    put_be(value, reached.value());
    batch.Put(reached_key_, value);
  }
  rocksdb::DB& db_;
  io::BlockingCalls& calls_;
  std::string reached_key_, heads_, events_;
};

RocksStore::RocksStore(std::unique_ptr<Database> database, io::BlockingCalls& calls, bool begun_anew)
    : database_{std::move(database)}, calls_{calls}, begun_anew_{begun_anew} {}
RocksStore::~RocksStore() = default;

Task<Result<std::unique_ptr<RocksStore>>> RocksStore::open(StoreOptions given, io::BlockingCalls& calls) {
  auto database = std::make_unique<Database>();
  rocksdb::Options& options = database->options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  options.write_buffer_size = given.memtable_bytes / 2;
  options.max_write_buffer_number = 2;
  options.db_write_buffer_size = given.memtable_bytes;
  options.max_open_files = given.open_files_max;
  options.max_background_jobs = 2;
  options.compression = rocksdb::kLZ4Compression;
  options.level_compaction_dynamic_level_bytes = true;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.keep_log_file_num = 2;
  options.max_log_file_size = 1 << 20;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(given.cache_bytes);
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));  // a new stream costs a device read in one of a hundred look-ups
  table.format_version = 5;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  Database* raw = database.get();
  auto open = [raw, path = given.path]() -> Result<bool> {
    auto attempt = [&] {
      rocksdb::DB* db = nullptr;
      rocksdb::Status status = rocksdb::DB::Open(raw->options, path, &db);
      raw->db.reset(db);
      return status;
    };
    rocksdb::Status status = attempt();
    if (status.ok()) return false;
    // Busy or out of space says nothing about what is stored; anything else it can be built again from.
    if (!status.IsCorruption() && !status.IsInvalidArgument() && !status.IsNotFound()) return std::unexpected(error_of(status));
    log_warn("stream.index_begun_anew", "{}: {}", path, status.ToString());
    if (auto gone = rocksdb::DestroyDB(path, raw->options); !gone.ok()) return std::unexpected(error_of(gone));
    status = attempt();
    if (!status.ok()) return std::unexpected(error_of(status));
    return true;
  };
  TAILRACE_CO_TRY(bool begun_anew, co_await io::blocking(calls, std::move(open)));
  co_return std::unique_ptr<RocksStore>{new RocksStore{std::move(database), calls, begun_anew}};
}

Task<Result<void>> RocksStore::close() {
  co_return co_await io::blocking(calls_, [this]() -> Result<void> {
    rocksdb::Status status = database_->db->Flush({});
    rocksdb::CancelAllBackgroundWork(database_->db.get(), true);
    database_->db.reset();
    if (!status.ok()) return std::unexpected(error_of(status));
    return {};
  });
}

std::unique_ptr<StreamIndex> RocksStore::index(const PartitionId& partition) { return std::make_unique<Index>(*database_->db, calls_, partition); }

Task<Result<RocksStore::Size>> RocksStore::size() {
  co_return co_await io::blocking(calls_, [this]() -> Result<Size> {
    Size out;
    std::uint64_t part = 0;
    database_->db->GetIntProperty("rocksdb.total-sst-files-size", &out.file_bytes);
    for (const char* name : {"rocksdb.cur-size-all-mem-tables", "rocksdb.block-cache-usage", "rocksdb.estimate-table-readers-mem"}) {
      if (database_->db->GetIntProperty(name, &part)) out.memory_bytes += part;
    }
    return out;
  });
}

}  // namespace tailrace::broker::stream
