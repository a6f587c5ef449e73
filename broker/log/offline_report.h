#pragma once
/// What the offline tools say, on its way to the sink: lines are made here, and counted.
#include <string>
#include <string_view>

#include "log/json_line.h"
#include "log/verify.h"

namespace tailrace::broker::log {

class OfflineReport {
 public:
  explicit OfflineReport(LineSink& sink) : sink_{sink} {}

  VerifyCounts counts{};

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
  LineSink& sink_;
};

/// `key = value` of the small text files; empty: the key is not there.
[[nodiscard]] std::string text_value(std::string_view text, std::string_view key);

inline constexpr std::size_t kTextFileBytesMax = 64 * 1024;

}  // namespace tailrace::broker::log
