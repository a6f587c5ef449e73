#pragma once
/// The records `pub` is given, one after the other: arguments, lines, jsonl or whole files. Knows no network.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "failure.h"
#include "flags.h"
#include "lines.h"
#include "tailrace/record.h"

namespace tailrace::cli {

/// How a line's key is found.
class KeyRule {
 public:
  /// Errors: both rules at once, an expression that does not compile, an empty separator.
  [[nodiscard]] static Outcome<KeyRule> make(const PubFlags& flags);
  KeyRule();
  ~KeyRule();
  KeyRule(KeyRule&&) noexcept;
  KeyRule& operator=(KeyRule&&) noexcept;

  struct Split {
    std::optional<std::string_view> key;
    std::string_view value;
  };
  /// Nothing: the line has no key and must have one.
  [[nodiscard]] std::optional<Split> apply(std::string_view line) const;

 private:
  struct Regex;
  std::optional<std::string> fixed_;
  std::optional<std::string> separator_;
  std::unique_ptr<Regex> regex_;
  bool allow_no_key_ = false;
};

/// Parses "key=value"; the value may hold more '='.
[[nodiscard]] Outcome<std::vector<Header>> parse_headers(const std::vector<std::string>& headers);

class PubInput {
 public:
  /// Checks the flags against each other and that every file can be read. `wake` interrupts waits (see LineReader).
  [[nodiscard]] static Outcome<PubInput> open(const PubFlags& flags, int wake);
  PubInput(PubInput&&) noexcept;
  ~PubInput();

  enum class Next { record, end, idle, interrupted };
  /// Waits at most `wait_ms` for standard input (-1: as long as it takes).
  [[nodiscard]] Outcome<Next> next(int wait_ms);
  /// After Next::record, until the next call. Its topic is empty.
  [[nodiscard]] const RecordView& record() const { return record_; }
  /// Position of that record in the whole input, from 0, skipped ones included.
  [[nodiscard]] std::uint64_t index() const { return index_ - 1; }
  /// Of the input, up to and including that record: what was read ahead does not count.
  [[nodiscard]] std::uint64_t bytes_taken() const;
  /// 0: not known (a pipe).
  [[nodiscard]] std::uint64_t bytes_total() const { return bytes_total_; }
  [[nodiscard]] bool reads_stdin() const { return reads_stdin_; }

 private:
  explicit PubInput(const PubFlags& flags) : flags_(&flags) {}
  Outcome<Next> next_piece(int wait_ms);
  Outcome<> make_record(std::string_view piece);
  Outcome<bool> open_next_file();
  [[nodiscard]] std::string where() const;

  const PubFlags* flags_;
  KeyRule keys_;
  std::vector<Header> common_headers_;
  std::vector<Header> headers_;
  RecordView record_;
  std::optional<std::string> key_, value_;  // what record_ points to when it was parsed from JSON
  std::string_view piece_;
  std::string file_name_;
  std::optional<LineReader> reader_;
  std::uint64_t index_ = 0;
  std::uint64_t line_in_file_ = 0;
  std::uint64_t published_ = 0;
  std::uint64_t bytes_total_ = 0;
  std::uint64_t bytes_before_ = 0;
  std::size_t next_file_ = 0;
  int wake_ = -1;
  int descriptor_ = -1;
  bool reads_stdin_ = false;
  bool from_arguments_ = false;
  bool whole_file_taken_ = false;
};

}  // namespace tailrace::cli
