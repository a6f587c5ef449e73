#include "stream/ledger.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/planted.h"
#include "model/limits.h"

namespace tailrace::broker::stream {

bool Ledger::full() const { return entries_.size() >= limits::kLedgerEntriesMax || name_bytes_ >= limits::kLedgerBytesMax; }

std::optional<Head> Ledger::head(std::string_view stream) {
  auto found = of_stream_.find(std::string{stream});
  if (found == of_stream_.end()) return warm_.find(number_, stream);
  return held(found->second.back()).update.head;
}

Judgement Ledger::judge(std::string_view stream, const Expected& expected, std::int32_t count) {
  Judgement out;
  auto known = of_stream_.find(std::string{stream});
  if (known != of_stream_.end() && !planted(PlantedBug::stream_judge_committed_only)) {
    const Update& newest = held(known->second.back()).update;
    out.head = newest.head;
    out.rests_on = planted(PlantedBug::stream_refuse_uncommitted) ? Offset{0} : newest.entry.next;
  } else if (auto warm = warm_.find(number_, stream)) {
    out.head = *warm;
  } else {
    out.kind = Judgement::Kind::cold;
    return out;
  }
  if (expected.met_by(out.head)) {
    out.kind = full() ? Judgement::Kind::no_credit : Judgement::Kind::append;
    out.first = out.head.last + 1;
    return out;
  }
  // Stored before? Only where the versions that it would have got have all been given out.
  std::optional<Version> first = expected.first_version();
  bool all_there = first && *first >= 0 && out.head.exists() && count - 1 <= out.head.last - *first;
  out.kind = all_there ? Judgement::Kind::compare : Judgement::Kind::wrong_version;
  out.first = first.value_or(0);
  return out;
}

void Ledger::appended(Entry entry) {
  TAILRACE_CHECK(entry.base >= end_, "entries come in log order");
  std::optional<Head> known = head(entry.stream);
  TAILRACE_CHECK(known.has_value(), "its stream's head is known");
  Head before = *known;
  end_ = entry.next;
  std::uint64_t number = next_number_++;
  name_bytes_ += entry.stream.size();
  of_stream_[entry.stream].push_back(number);
  Head behind = after(before, entry);
  entries_.push_back({{std::move(entry), before.last + 1, behind}, number});
}

void Ledger::passed(Offset next) { end_ = std::max(end_, next); }

void Ledger::rolled_back(Offset end) {
  if (planted(PlantedBug::stream_no_roll_back)) {
    end_ = std::min(end_, end);
    return;
  }
  TAILRACE_CHECK(end >= begin_, "what is in the index is committed");
  while (!entries_.empty() && entries_.back().update.entry.next > end) {
    const std::string& stream = entries_.back().update.entry.stream;
    name_bytes_ -= stream.size();
    auto found = of_stream_.find(stream);
    found->second.pop_back();
    if (found->second.empty()) of_stream_.erase(found);
    entries_.pop_back();
    --next_number_;
  }
  end_ = std::min(end_, end);
}

std::vector<Ledger::Update> Ledger::committed(Offset committed, std::size_t max) const {
  std::vector<Update> out;
  for (const Held& held : entries_) {
    if (held.update.entry.next > committed || out.size() == max) break;
    out.push_back(held.update);
  }
  return out;
}

void Ledger::indexed(Offset reached) {
  TAILRACE_CHECK(reached <= end_, "nothing is indexed that was not seen");
  while (!entries_.empty() && entries_.front().update.entry.next <= reached) {
    Update& update = entries_.front().update;
    const std::string& stream = update.entry.stream;
    if (auto lookup = lookups_.find(stream); lookup != lookups_.end() && !planted(PlantedBug::stream_stale_lookup)) lookup->second.overtaken_by = update.head;
    if (!planted(PlantedBug::stream_keep_stale_head) || !warm_.find(number_, stream)) warm_.put(number_, stream, update.head);
    name_bytes_ -= stream.size();
    auto found = of_stream_.find(stream);
    found->second.pop_front();
    if (found->second.empty()) of_stream_.erase(found);
    entries_.pop_front();
  }
  begin_ = std::max(begin_, reached);
}

std::vector<Ledger::Update> Ledger::of(std::string_view stream, Offset committed) const {
  std::vector<Update> out;
  auto found = of_stream_.find(std::string{stream});
  if (found == of_stream_.end()) return out;
  for (std::uint64_t number : found->second) {
    const Update& update = held(number).update;
    if (update.entry.next > committed) break;
    out.push_back(update);
  }
  return out;
}

void Ledger::begin_lookup(std::string_view stream) { ++lookups_[std::string{stream}].waiting; }

Head Ledger::end_lookup(std::string_view stream, const Head& found) {
  auto lookup = lookups_.find(std::string{stream});
  TAILRACE_CHECK(lookup != lookups_.end(), "it was begun");
  Head out = lookup->second.overtaken_by.value_or(found);
  if (--lookup->second.waiting == 0) lookups_.erase(lookup);
  warm_.put(number_, stream, out);
  return out;
}

void Ledger::abandon_lookup(std::string_view stream) {
  auto lookup = lookups_.find(std::string{stream});
  TAILRACE_CHECK(lookup != lookups_.end(), "it was begun");
  if (--lookup->second.waiting == 0) lookups_.erase(lookup);
}

}  // namespace tailrace::broker::stream
