#pragma once
/// What is appended to a partition of streams and not in its index yet; judges appends. A pure value: no file, no clock.
///
///   an append comes -> judge() -> append: the owner appends the batch and tells appended()
///                              -> wrong_version: the answer rests on rests_on(), told when that is committed
///                              -> compare: if the ids stored from a version on are those of the append, it was stored before: a success
///                              -> cold: begin_lookup(); the head is in the index only
///   the log is cut  -> rolled_back()         the index took the oldest -> indexed()
///
/// Spec     docs/event-store.md, "The index", "Expected versions".
/// Shard    the partition's. Bound: limits::kLedgerEntriesMax and kLedgerBytesMax, kept by judge(): no_credit.
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "stream/head.h"
#include "stream/warm_heads.h"

namespace tailrace::broker::stream {

struct Judgement {
  enum class Kind : std::uint8_t { append, wrong_version, compare, cold, no_credit };
  Kind kind = Kind::no_credit;
  Head head{};           // the newest one; of append, wrong_version and compare
  Version first = 0;     // append: of the first event. compare: from where the stored ids are compared
  Offset rests_on{0};    // the answer may leave when all below is committed
};

class Ledger {
 public:
  /// All below `begin` is in the index. `warm` outlives it; `number` tells the partitions in it apart.
  Ledger(Offset begin, WarmHeads& warm, std::uint32_t number) : begin_{begin}, warm_{warm}, number_{number} {}
  ~Ledger() { warm_.forget(number_); }
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  [[nodiscard]] Judgement judge(std::string_view stream, const Expected& expected, std::int32_t count);
  /// The newest head, of what is appended and not committed too; none: only the index knows.
  [[nodiscard]] std::optional<Head> head(std::string_view stream);

  /// An entry in log order: just appended, or read back from the log after a start. Its stream's head is known: from the judgement
  /// just before, or because it was looked up.
  void appended(Entry entry);
  /// Batches without events of a stream (a term start has none; a foreign control batch has).
  void passed(Offset next);
  /// The log was cut: everything at or behind `end` is gone.
  void rolled_back(Offset end);

  /// An entry with the head behind it, for the index.
  struct Update {
    Entry entry{};
    Version first_version = 0;
    Head head{};
  };
  /// The oldest ones that end at or below `committed`, at most `max`.
  [[nodiscard]] std::vector<Update> committed(Offset committed, std::size_t max) const;
  /// All below `reached` is in the index.
  void indexed(Offset reached);
  [[nodiscard]] Offset begin() const { return begin_; }
  /// Behind the last entry; as far as passed() said.
  [[nodiscard]] Offset end() const { return end_; }
  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] bool full() const;

  /// Entries of a stream that end at or below `committed`, oldest first: what reads add to the index.
  [[nodiscard]] std::vector<Update> of(std::string_view stream, Offset committed) const;

  /// A look-up in the index is under way. What the index takes of the stream meanwhile overtakes it.
  void begin_lookup(std::string_view stream);
  /// It answered `found`. The head that counts is known from here on, until it is used no more; it is answered too.
  Head end_lookup(std::string_view stream, const Head& found);
  /// It failed: nothing is known from it.
  void abandon_lookup(std::string_view stream);

 private:
  struct Held {
    Update update{};
    std::uint64_t number = 0;
  };
  [[nodiscard]] const Held& held(std::uint64_t number) const { return entries_[number - entries_.front().number]; }

  Offset begin_;
  WarmHeads& warm_;
  std::uint32_t number_;
  Offset end_ = begin_;
  std::deque<Held> entries_{};
  std::uint64_t next_number_ = 0;
  std::size_t name_bytes_ = 0;
  std::unordered_map<std::string, std::deque<std::uint64_t>> of_stream_{};  // numbers of its entries, oldest first
  struct Lookup {
    int waiting = 0;
    std::optional<Head> overtaken_by{};
  };
  std::unordered_map<std::string, Lookup> lookups_{};
};

}  // namespace tailrace::broker::stream
