#pragma once
/// What the offline tools say, on its way to the sink: lines are made here, and counted. And the reads they have in flight.
#include <string>
#include <string_view>

#include "base/task.h"
#include "log/json_line.h"
#include "log/verify.h"

namespace tailrace::broker::log {

class OfflineReport {
 public:
  explicit OfflineReport(LineSink& sink) : sink_{sink} {}

  VerifyCounts counts{};
  TaskScope reads{};  // of files' windows; drained by who made the report
  std::uint64_t bytes_expected = 0;  // roughly; 0: not known

  /// So many bytes were checked.
  void checked(std::uint64_t bytes) {
    counts.bytes += bytes;
    unsaid_ += bytes;
    if (unsaid_ < kStep) return;
    unsaid_ = 0;
    sink_.progress(counts, bytes_expected);
  }
  [[nodiscard]] bool wants_progress() const { return sink_.wants_progress(); }
  void entry(JsonLine line) { sink_.line(line.finish()); }
  void note(const std::string& file, std::uint64_t position, std::uint64_t bytes, std::string_view what) {
    ++counts.notes;
    fact("note", "note", file, position, bytes, what);
  }
  void torn(const std::string& file, std::uint64_t position, std::uint64_t bytes, std::string_view what) {
    ++counts.torn;
    fact("note", "torn", file, position, bytes, what);
  }
  void damage(const std::string& file, std::uint64_t position, std::uint64_t bytes, std::string_view what) {
    ++counts.damaged;
    fact("damage", "damage", file, position, bytes, what);
  }

 private:
  void fact(std::string_view kind, std::string_view name, const std::string& file, std::uint64_t position, std::uint64_t bytes, std::string_view what) {
    JsonLine line{kind};
    line.text("file", file).number("position", position).number("bytes", bytes).text(name, what);
    sink_.line(line.finish());
  }
  static constexpr std::uint64_t kStep = 4 << 20;

  LineSink& sink_;
  std::uint64_t unsaid_ = 0;
};

/// `key = value` of the small text files; empty: the key is not there.
[[nodiscard]] std::string text_value(std::string_view text, std::string_view key);

inline constexpr std::size_t kTextFileBytesMax = 64 * 1024;

}  // namespace tailrace::broker::log
