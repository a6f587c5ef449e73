#include "log/cold_reader.h"

#include <algorithm>

#include "log/segment_files.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {

ColdReader::ChunkPtr ColdReader::find(const ChunkKey& key) {
  auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  items_.splice(items_.begin(), items_, found->second);
  return found->second->chunk;
}

ColdReader::ChunkPtr ColdReader::insert(const ChunkKey& key) {
  evict();
  items_.push_front({key, std::make_shared<Chunk>(runtime_.executor)});
  by_key_[key] = items_.begin();
  return items_.front().chunk;
}

void ColdReader::evict() {
  while (!items_.empty() && (items_.size() + 1) * kChunkBytes > pool_bytes_) {
    auto victim = std::prev(items_.end());
    while (victim->chunk->loading && victim != items_.begin()) --victim;
    if (victim->chunk->loading) return;
    by_key_.erase(victim->key);
    items_.erase(victim);
  }
}

Task<void> ColdReader::load(Source source, std::uint32_t index, ChunkPtr chunk) {
  std::uint64_t at = std::uint64_t{index} * kChunkBytes;
  auto wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(kChunkBytes, source.end - at));
  auto file = co_await files_.get(source.key, source.path, false);
  if (!file) {
    chunk->error = file.error();
  } else {
    chunk->bytes = Buffer::allocate(align_up(wanted), io::kDirectAlignment);
    ++stats_.cold_reads;
    auto got = co_await read_direct(**file, chunk->bytes.bytes(), at);
    if (got) {
      chunk->valid = std::min<std::uint32_t>(wanted, static_cast<std::uint32_t>(*got));
      stats_.cold_read_bytes += *got;
    } else {
      // One bad sector must not hide the rest: block by block, up to the first that fails.
      chunk->error = got.error();
      for (std::uint32_t block = 0; block < wanted; block += limits::kWalBlock) {
        MutableBytes part = chunk->bytes.bytes().subspan(block, limits::kWalBlock);
        auto one = co_await read_direct(**file, part, at + block);
        if (!one || *one == 0) break;
        chunk->valid = std::min<std::uint32_t>(wanted, block + static_cast<std::uint32_t>(*one));
      }
    }
  }
  chunk->loading = false;
  chunk->loaded.notify_all();
}

Task<Result<ColdReader::ChunkPtr>> ColdReader::chunk(const Source& source, std::uint32_t index) {
  ChunkKey key{source.key, index};
  std::uint64_t at = std::uint64_t{index} * kChunkBytes;
  auto wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(kChunkBytes, source.end - at));
  ChunkPtr held = find(key);
  if (held && !held->loading && (held->error || held->valid < wanted)) {
    // Shorter than the segment is by now, or failed then: read anew.
    auto stale = by_key_.find(key);
    items_.erase(stale->second);
    by_key_.erase(stale);
    held = nullptr;
  }
  if (!held) {
    held = insert(key);
    loads_.spawn(load(source, index, held));
  }
  while (held->loading) co_await held->loaded.wait();
  co_return held;
}

void ColdReader::read_ahead(const Source& source, std::uint32_t index) {
  for (std::uint32_t ahead = 1; ahead <= kReadAhead; ++ahead) {
    std::uint64_t at = (std::uint64_t{index} + ahead) * kChunkBytes;
    if (at >= source.end || (items_.size() + 1) * kChunkBytes > pool_bytes_ * 3 / 4 + kChunkBytes * 2) {
      if (at >= source.end) return;
    }
    ChunkKey key{source.key, index + ahead};
    if (by_key_.contains(key)) continue;
    loads_.spawn(load(source, index + ahead, insert(key)));
  }
}

Task<Result<Slice>> ColdReader::chunk_rest(Source source, std::uint32_t position, bool sequential) {
  std::uint32_t index = position / kChunkBytes;
  std::uint32_t offset = position % kChunkBytes;
  if (position >= source.end) co_return Slice{};
  if (sequential) read_ahead(source, index);
  TAILRACE_CO_TRY(ChunkPtr held, co_await chunk(source, index));
  if (held->valid <= offset) {
    if (held->error) co_return std::unexpected(*held->error);
    co_return Slice{};
  }
  co_return Slice{held->bytes, offset, held->valid - offset};
}

Task<Result<Slice>> ColdReader::read(Source source, std::uint32_t position, std::uint32_t length, bool sequential) {
  length = static_cast<std::uint32_t>(std::min<std::uint64_t>(length, source.end > position ? source.end - position : 0));
  Buffer out{};
  std::uint32_t done = 0;
  while (done < length) {
    TAILRACE_CO_TRY(Slice part, co_await chunk_rest(source, position + done, sequential));
    if (part.length == 0) break;
    if (done == 0 && part.length >= length) co_return part.part(0, length);
    if (!out) out = Buffer::allocate(length);
    auto step = static_cast<std::uint32_t>(std::min<std::size_t>(part.length, length - done));
    std::memcpy(out.data() + done, part.owner.data() + part.offset, step);
    done += step;
  }
  co_return Slice{std::move(out), 0, done};
}

void ColdReader::forget(FileCache::Key key) {
  for (auto it = items_.begin(); it != items_.end();) {
    if (it->key.file == key && !it->chunk->loading) {
      by_key_.erase(it->key);
      it = items_.erase(it);
    } else {
      if (it->key.file == key) it->chunk->error = Error{Errc::cancelled, "the segment changed"};
      ++it;
    }
  }
}

void ColdReader::forget_partition(std::uint32_t partition) {
  for (auto it = items_.begin(); it != items_.end();) {
    if (it->key.file.partition == partition && !it->chunk->loading) {
      by_key_.erase(it->key);
      it = items_.erase(it);
    } else {
      if (it->key.file.partition == partition) it->chunk->error = Error{Errc::cancelled, "the partition went away"};
      ++it;
    }
  }
}

Task<void> ColdReader::drain() { co_await loads_.drain(); }

}  // namespace tailrace::broker::log
