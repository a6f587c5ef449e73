#include "log/cold_reader.h"

#include <algorithm>

#include "base/crc32c.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {

ColdBytes::Place ColdBytes::place(std::uint32_t at) const {
  std::uint32_t skip = at - begin_;
  auto first = static_cast<std::uint32_t>(parts_.front().length);
  if (skip < first) return {0, skip};
  skip -= first;
  return {1 + skip / ColdReader::kChunkBytes, skip % ColdReader::kChunkBytes};
}

Bytes ColdBytes::at(std::uint32_t from) const {
  if (from >= end_) return {};
  Place p = place(from);
  return parts_[p.part].bytes().subspan(p.offset);
}

Slice ColdBytes::slice(std::uint32_t from, std::uint32_t length) const {
  Place p = place(from);
  const Slice& part = parts_[p.part];
  if (part.length - p.offset >= length) return part.part(p.offset, length);
  Buffer out = Buffer::allocate(length);
  copy(from, out.bytes());
  return Slice::whole(std::move(out));
}

void ColdBytes::copy(std::uint32_t from, MutableBytes into) const {
  for (std::size_t done = 0; done < into.size();) {
    Bytes step = at(from + static_cast<std::uint32_t>(done));
    step = step.first(std::min(step.size(), into.size() - done));
    std::memcpy(into.data() + done, step.data(), step.size());
    done += step.size();
  }
}

std::uint32_t ColdBytes::crc(std::uint32_t from, std::uint32_t to, std::uint32_t previous) const {
  while (from < to) {
    Bytes step = at(from);
    step = step.first(std::min<std::size_t>(step.size(), to - from));
    previous = crc32c(step, previous);
    from += static_cast<std::uint32_t>(step.size());
  }
  return previous;
}

Buffer ColdReader::take_buffer(std::size_t bytes) {
  if (bytes < kChunkBytes) return Buffer::allocate(bytes, io::kDirectAlignment);
  if (spare_.empty()) return Buffer::allocate(kChunkBytes, io::kDirectAlignment);
  Buffer out = std::move(spare_.back());
  spare_.pop_back();
  return out;
}

void ColdReader::drop(Items::iterator item) {
  ChunkPtr chunk = *item;
  by_key_.erase(chunk->key);
  (chunk->asked_for ? asked_ : ahead_).erase(item);
  // Fresh memory costs a page fault every 4 KiB; a buffer that no reader holds any more is used again.
  bool reusable = !chunk->loading && chunk.use_count() == 1 && chunk->bytes.size() == kChunkBytes && chunk->bytes.unique();
  if (reusable && spare_.size() < kSpareMax) spare_.push_back(std::move(chunk->bytes));
}

void ColdReader::make_room() {
  std::uint64_t most = std::max<std::uint64_t>(pool_bytes_ / kChunkBytes, 2);
  auto drop_oldest = [this](Items& list) {
    for (auto item = list.end(); item != list.begin();) {
      if ((*--item)->loading) continue;
      drop(item);
      return true;
    }
    return false;
  };
  while (by_key_.size() >= most) {
    // Read ahead, and not asked for while the pool was filled twice: its consumer went away.
    bool given_up = !ahead_.empty() && loads_started_ - ahead_.back()->number > 2 * most;
    if (given_up && drop_oldest(ahead_)) continue;
    if (!drop_oldest(asked_) && !drop_oldest(ahead_)) return;  // all are being read: bounded by the readers there are
  }
}

ColdReader::ChunkPtr ColdReader::start(const Source& source, std::uint32_t index, Items& list) {
  make_room();
  auto chunk = std::make_shared<Chunk>(runtime_.executor, ChunkKey{source.key, index});
  chunk->number = ++loads_started_;
  chunk->asked_for = &list == &asked_;
  std::uint64_t at = std::uint64_t{index} * kChunkBytes;
  chunk->wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(kChunkBytes, source.end - at));
  list.push_front(chunk);
  by_key_[chunk->key] = list.begin();
  loads_.spawn(read_chunk(source, chunk));
  return chunk;
}

bool ColdReader::usable(const Chunk& chunk, const Source& source) const {
  if (chunk.loading) return true;
  std::uint64_t at = std::uint64_t{chunk.key.index} * kChunkBytes;
  auto wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(kChunkBytes, source.end - at));
  if (chunk.valid < wanted && chunk.wanted < wanted) return false;  // the segment has grown
  if (chunk.refused.none()) return !chunk.error && chunk.valid >= chunk.wanted;
  return runtime_.clock.now() - chunk.loaded_at < kQuarantine;
}

/// The chunk, loaded or being read; and what a sequential reader will ask for next is on its way.
ColdReader::ChunkPtr ColdReader::get(const Source& source, std::uint32_t index) {
  ChunkPtr chunk;
  if (auto found = by_key_.find({source.key, index}); found != by_key_.end()) {
    Items::iterator item = found->second;
    if (usable(**item, source)) {
      chunk = *item;
      asked_.splice(asked_.begin(), chunk->asked_for ? asked_ : ahead_, item);
      if (std::exchange(chunk->asked_for, true)) return chunk;
    } else {
      drop(item);
    }
  }
  if (!chunk) chunk = start(source, index, asked_);
  auto before = by_key_.find({source.key, index - 1});
  bool went_on = index > 0 && before != by_key_.end() && (*before->second)->asked_for;
  if (went_on) chunk->ahead = std::clamp<std::uint32_t>((*before->second)->ahead * 2, 1, kReadAhead);
  else if (index == 0) chunk->ahead = 1;  // who reads a segment from its front mostly goes on
  read_ahead(source, *chunk);
  return chunk;
}

void ColdReader::read_ahead(const Source& source, const Chunk& from) {
  for (std::uint32_t step = 1; step <= from.ahead; ++step) {
    std::uint32_t index = from.key.index + step;
    if (std::uint64_t{index} * kChunkBytes >= source.end) return;
    if (by_key_.contains({source.key, index})) continue;
    if ((ahead_.size() + 1) * kChunkBytes > pool_bytes_ / 2) {
      make_room();  // what was given up goes first
      if ((ahead_.size() + 1) * kChunkBytes > pool_bytes_ / 2) return;
    }
    start(source, index, ahead_);
  }
}

Task<void> ColdReader::read_chunk(Source source, ChunkPtr chunk) {
  auto file = co_await files_.get(source.key, source.path, false);
  if (!file) {
    chunk->error = file.error();
  } else {
    chunk->bytes = take_buffer(align_up(chunk->wanted));
    co_await read_range(**file, *chunk, 0, static_cast<std::uint32_t>(align_up(chunk->wanted)));
  }
  chunk->loaded_at = runtime_.clock.now();
  chunk->loading = false;
  chunk->loaded.notify_all();
}

/// Both ends at block boundaries. One bad sector must not hide the rest.
Task<void> ColdReader::read_range(io::File& file, Chunk& chunk, std::uint32_t from, std::uint32_t to) {
  std::uint64_t at = std::uint64_t{chunk.key.index} * kChunkBytes;
  MutableBytes into = chunk.bytes.bytes().subspan(from, to - from);
  ++stats_.cold_reads;
  auto got = co_await io::read_up_to(file, into, at + from);
  if (got) {
    stats_.cold_read_bytes += *got;
    chunk.valid = std::max(chunk.valid, std::min(chunk.wanted, from + static_cast<std::uint32_t>(*got)));
    co_return;
  }
  if (to - from > limits::kWalBlock) {
    auto middle = from + static_cast<std::uint32_t>(align_up((to - from) / 2));
    co_await read_range(file, chunk, from, middle);
    co_await read_range(file, chunk, middle, to);
    co_return;
  }
  ++stats_.refused_blocks;
  chunk.error = std::move(got.error());
  chunk.refused.set(from / limits::kWalBlock);
  std::memset(into.data(), 0, into.size());
  chunk.valid = std::max(chunk.valid, std::min(chunk.wanted, to));
}

Task<ColdReader::Loaded> ColdReader::load(Source source, std::uint32_t from, std::uint32_t to) {
  Loaded out{.bytes = ColdBytes{from}};
  to = std::min(to, source.end);
  if (from >= to) co_return out;
  std::vector<ChunkPtr> chunks;
  for (std::uint32_t index = from / kChunkBytes; index <= (to - 1) / kChunkBytes; ++index) chunks.push_back(get(source, index));
  for (const ChunkPtr& chunk : chunks) {
    while (chunk->loading) co_await chunk->loaded.wait();
  }
  for (const ChunkPtr& chunk : chunks) {
    std::uint64_t at = std::uint64_t{chunk->key.index} * kChunkBytes;
    auto begin = static_cast<std::uint32_t>(out.bytes.end() - at);
    std::uint32_t wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(to - at, kChunkBytes));
    std::uint32_t end = std::min(wanted, chunk->valid);
    for (std::size_t block = begin / limits::kWalBlock; chunk->refused.any() && block * limits::kWalBlock < end; ++block) {
      if (chunk->refused[block]) end = static_cast<std::uint32_t>(block * limits::kWalBlock);
    }
    if (end > begin) out.bytes.add(Slice{chunk->bytes, begin, end - begin});
    if (end == wanted) continue;
    out.error = chunk->error;
    break;
  }
  co_return out;
}

template <class Match>
void ColdReader::forget_if(Match match) {
  for (Items* list : {&asked_, &ahead_}) {
    for (auto it = list->begin(); it != list->end();) {
      auto item = it++;
      if (match((*item)->key)) drop(item);
    }
  }
}

void ColdReader::forget(FileCache::Key key) {
  forget_if([&](const ChunkKey& k) { return k.file == key; });
}
void ColdReader::forget(FileCache::Key key, std::uint32_t from, std::uint32_t to) {
  forget_if([&](const ChunkKey& k) { return k.file == key && k.index >= from / kChunkBytes && k.index <= (to - 1) / kChunkBytes; });
}
void ColdReader::forget_partition(std::uint32_t partition) {
  forget_if([&](const ChunkKey& k) { return k.file.partition == partition; });
}

Task<void> ColdReader::drain() { co_await loads_.drain(); }

}  // namespace tailrace::broker::log
