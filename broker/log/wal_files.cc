#include "log/wal_files.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/buffer.h"
#include "base/log.h"

namespace tailrace::broker::log {

std::string wal_slot_path(const std::string& folder, std::uint32_t slot) { return fmt::format("{}/{:02}.log", folder, slot); }

void WalFiles::adopt(WalSlot slot, bool live) {
  slot.state = live ? WalSlot::State::full : WalSlot::State::free;
  slots_.push_back(std::make_unique<WalSlot>(std::move(slot)));
}

std::uint64_t WalFiles::oldest_in_use() const {
  std::uint64_t oldest = 0;
  for (const auto& s : slots_) {
    if (s->state != WalSlot::State::full && s->state != WalSlot::State::active) continue;
    if (oldest == 0 || s->header.sequence < oldest) oldest = s->header.sequence;
  }
  return oldest;
}

WalSource WalFiles::source(std::uint64_t sequence) const {
  for (const auto& s : slots_) {
    bool in_use = s->state == WalSlot::State::full || s->state == WalSlot::State::active;
    if (in_use && s->header.sequence == sequence) return {s->file.get(), s->header.salt};
  }
  return {};
}

std::size_t WalFiles::full_count() const {
  return static_cast<std::size_t>(std::ranges::count_if(slots_, [](const auto& s) { return s->state == WalSlot::State::full; }));
}

std::size_t WalFiles::slot_count() const {
  return static_cast<std::size_t>(std::ranges::count_if(slots_, [](const auto& s) { return s->file && s->state != WalSlot::State::filling; }));
}

std::size_t WalFiles::free_count() const {
  return static_cast<std::size_t>(std::ranges::count_if(slots_, [](const auto& s) { return s->state == WalSlot::State::free; }));
}

bool WalFiles::can_prepare() const {
  auto files = static_cast<std::size_t>(options_.files);
  return slots_.size() < files || free_count() > (slots_.size() > files ? 1U : 0U);
}

Task<Result<void>> WalFiles::keep_one_back() {
  if (slots_.size() != static_cast<std::size_t>(options_.files)) co_return Result<void>{};
  std::uint32_t number = 0;
  for (const auto& s : slots_) number = std::max(number, s->slot + 1);
  auto slot = std::make_unique<WalSlot>(WalSlot{.slot = number});
  TAILRACE_CO_TRY_VOID(co_await fill(*slot));
  slot->state = WalSlot::State::free;
  slots_.push_back(std::move(slot));
  co_return Result<void>{};
}

WalSlot* WalFiles::slot_to_use(bool kept_back_too) {
  if (!kept_back_too && !can_prepare()) return nullptr;
  // A header of this very sequence, written and never used before a crash, is overwritten in place: two files of one
  // sequence must not exist, and a frame may name it, so it must not vanish either. One of a later sequence goes last, so
  // that its own turn finds it. A file of another size is used once more as it is; it is made anew when it is free again.
  WalSlot* best = nullptr;
  auto rank = [&](const WalSlot& s) { return s.header.sequence > next_sequence_ ? 0 : s.filled ? 2 : 1; };
  for (const auto& s : slots_) {
    if (s->state != WalSlot::State::free) continue;
    if (s->header.sequence == next_sequence_) return s.get();
    if (!best || rank(*s) > rank(*best)) best = s.get();
  }
  if (best) return best;
  if (slots_.size() >= static_cast<std::size_t>(options_.files)) return nullptr;
  std::uint32_t number = 0;
  for (const auto& s : slots_) number = std::max(number, s->slot + 1);
  slots_.push_back(std::make_unique<WalSlot>(WalSlot{.slot = number}));
  return slots_.back().get();
}

/// A file whose filling failed is not believed, name and size included: it is removed, and the next call makes a new one.
Task<Result<void>> WalFiles::fill(WalSlot& slot) {
  slot.state = WalSlot::State::filling;
  auto filled = co_await write_zeros(slot);
  if (filled) {
    slot.filled = true;
    slot.header = {};
    slot.header.file_bytes = options_.file_bytes;
    co_return filled;
  }
  slot.state = WalSlot::State::free;
  slot.filled = false;
  if (!slot.file) co_return filled;
  slot.file.reset();
  auto gone = co_await runtime_.files.remove(wal_slot_path(options_.folder, slot.slot));
  if (!gone) log_warn("wal.slot_left", "shard {} slot {}: {}", options_.shard, slot.slot, gone.error().detail);
  co_return filled;
}

Task<Result<void>> WalFiles::write_zeros(WalSlot& slot) {
  // Written once by hand: an overwrite of written blocks needs no file-system journal commit (storage.md, finding 1 and 2).
  if (!slot.file) {
    io::OpenOptions open{.create = true, .write = true, .direct = true};
    TAILRACE_CO_TRY(slot.file, co_await runtime_.files.open(wal_slot_path(options_.folder, slot.slot), open));
  }
  auto size = slot.file->size();
  if (size && *size > options_.file_bytes) TAILRACE_CO_TRY_VOID(co_await io::truncate(*slot.file, options_.file_bytes));
  Buffer zeros = Buffer::allocate(std::min<std::size_t>(limits::kMiB, options_.file_bytes), io::kDirectAlignment);
  std::memset(zeros.data(), 0, zeros.size());
  for (std::uint64_t at = 0; at < options_.file_bytes; at += zeros.size()) {
    auto step = static_cast<std::size_t>(std::min<std::uint64_t>(zeros.size(), options_.file_bytes - at));
    Bytes part{zeros.data(), step};
    TAILRACE_CO_TRY_VOID(co_await io::write_all(*slot.file, part, at, io::Durable::no));
  }
  TAILRACE_CO_TRY_VOID(co_await io::sync(*slot.file));
  co_return co_await runtime_.files.sync_directory(options_.folder);
}

Task<Result<void>> WalFiles::prepare(Chain chain, bool kept_back_too) {
  TAILRACE_CHECK(!prepared_, "one file is prepared at a time");
  WalSlot* slot = slot_to_use(kept_back_too);
  if (!slot) co_return fail(Errc::no_credit, "every WAL slot is in use");
  if (!slot->filled || !slot->file) TAILRACE_CO_TRY_VOID(co_await fill(*slot));
  slot->state = WalSlot::State::preparing;
  slot->header = WalFileHeader{.shard = options_.shard,
                               .slot = slot->slot,
                               .sequence = next_sequence_,
                               .file_bytes = slot->header.file_bytes,
                               .salt = runtime_.random.next(),
                               .previous_end = chain.previous_end,
                               .first_frame = chain.first_frame,
                               .previous_header_crc = chain.previous_header_crc,
                               .directory_id = options_.directory_id};
  Buffer block = Buffer::allocate(limits::kWalBlock, io::kDirectAlignment);
  std::memset(block.data(), 0, block.size());
  encode(slot->header, block.bytes());
  auto first = co_await io::write_all(*slot->file, block.bytes(), 0, io::Durable::yes);
  auto last = first ? co_await io::write_all(*slot->file, block.bytes(), data_end(*slot), io::Durable::yes) : first;
  if (!last) {
    slot->state = WalSlot::State::free;
    slot->filled = false;
    co_return last;
  }
  slot->state = WalSlot::State::prepared;
  prepared_ = slot;
  ++next_sequence_;
  co_return Result<void>{};
}

void WalFiles::activate() {
  TAILRACE_CHECK(prepared_, "only a prepared file becomes active");
  if (active_) active_->state = WalSlot::State::full;
  active_ = std::exchange(prepared_, nullptr);
  active_->state = WalSlot::State::active;
}

std::size_t WalFiles::free_before(std::uint64_t sequence) {
  std::size_t freed = 0;
  for (const auto& s : slots_) {
    if (s->state != WalSlot::State::full || s->header.sequence >= sequence) continue;
    s->state = WalSlot::State::free;
    if (s->header.file_bytes != options_.file_bytes) s->filled = false;
    ++freed;
  }
  return freed;
}

}  // namespace tailrace::broker::log
