// A log in memory, as a node and its disk see it.
#include <algorithm>

#include "tests/unit/raft/cluster.h"

namespace tailrace::broker::raft::test {
namespace {

std::uint64_t mix(std::uint64_t a, std::uint64_t b) { return Random{a * 0x9e3779b97f4a7c15ULL + b}.next(); }

std::uint64_t chain_of(std::uint64_t before, const Entry& e) {
  std::uint64_t h = mix(before, static_cast<std::uint64_t>(e.begin.offset.value()) * 64 + e.begin.sub);
  h = mix(h, static_cast<std::uint64_t>(e.end.offset.value()) * 64 + e.end.sub);
  h = mix(h, static_cast<std::uint64_t>(e.term.value()));
  return mix(h, e.is_mark ? 1'000'000'000ULL + static_cast<std::uint64_t>(e.mark.kind) : e.value);
}

}  // namespace

std::optional<std::uint64_t> Image::chain_at(LogPosition at) const {
  if (at == start) return start_chain;
  const Entry* entry = ending_at(at);
  return entry ? std::optional{entry->chain} : std::nullopt;
}

const Entry* Image::ending_at(LogPosition at) const {
  auto found = std::ranges::lower_bound(entries, at, {}, &Entry::end);
  return found != entries.end() && found->end == at ? &*found : nullptr;
}

std::size_t Image::index_from(LogPosition begin) const {
  return static_cast<std::size_t>(std::ranges::lower_bound(entries, begin, {}, &Entry::begin) - entries.begin());
}

Producers Image::producers_at(LogPosition at) const {
  Producers out = start_producers;
  for (const Entry& entry : entries) {
    if (entry.end > at) break;
    if (entry.producer < 0) continue;
    auto& window = out[entry.producer];
    window.emplace_back(entry.sequence, entry.end);
    if (window.size() > 5) window.pop_front();
  }
  return out;
}

void Image::truncate(LogPosition to) {
  while (!entries.empty() && entries.back().end > to) entries.pop_back();
}

void Image::trim(LogPosition to) {
  if (to <= start) return;
  start_producers = producers_at(to);
  std::size_t dropped = 0;
  for (; dropped < entries.size() && entries[dropped].end <= to; ++dropped) {
    start_term = entries[dropped].term;
    start_chain = entries[dropped].chain;
    if (entries[dropped].is_mark && entries[dropped].mark.kind == MarkKind::members) start_members = entries[dropped].members;
  }
  entries.erase(entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(dropped));
  start = to;
}

void Image::append(Entry entry) {
  entry.chain = chain_of(last_chain(), entry);
  entries.push_back(std::move(entry));
}

void Write::apply(Image& to) const {
  switch (kind) {
    case Kind::hard_state:
      to.hard = hard;
      break;
    case Kind::entry:
      to.entries.push_back(entry);
      break;
    case Kind::truncate:
      to.truncate(position);
      to.commit = std::min(to.commit, to.end());
      break;
    case Kind::trim:
      to.trim(position);
      to.commit = std::max(to.commit, position);
      break;
    case Kind::install: {
      HardState kept = to.hard;
      to = *image;
      to.hard = kept;
      break;
    }
    case Kind::checkpoint:
      to.commit = std::max(to.commit, std::min(position, to.end()));
      break;
    case Kind::log_start:
      to.log_start = log_start;
      break;
  }
}

}  // namespace tailrace::broker::raft::test
