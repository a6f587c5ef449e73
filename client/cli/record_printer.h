#pragma once
/// Records on standard output, in the format that was asked for; counts what it printed.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "context.h"
#include "record_json.h"
#include "tailrace/record.h"
#include "text.h"

namespace tailrace::cli {

class RecordPrinter {
 public:
  RecordPrinter(Context& context, const TailFlags& flags, Format format) : context_(context), flags_(flags), format_(format) {}

  /// False: enough was printed, or nobody reads it any more.
  bool print(const Message& message) {
    if (flags_.key && (!message.key || as_text(*message.key) != *flags_.key)) return going_on();
    line_.clear();
    switch (format_) {
      case Format::raw:
        if (message.value) line_.append(as_text(*message.value));
        break;
      case Format::table: table_line(message); break;
      case Format::automatic:
      case Format::json:
      case Format::jsonl: {
        JsonRecord record;
        record.topic = message.topic;
        record.partition = message.partition;
        record.offset = message.offset;
        record.timestamp = message.time;
        if (message.key) record.key = as_text(*message.key);
        if (message.value) record.value = as_text(*message.value);
        record.with_value = !flags_.no_value;
        append_record_json(line_, record, message.headers);
        break;
      }
    }
    line_ += '\n';
    context_.out.write(line_);
    ++records_;
    bytes_ += (message.key ? message.key->size() : 0) + (message.value ? message.value->size() : 0);
    return going_on();
  }
  [[nodiscard]] bool going_on() const { return (flags_.count == 0 || records_ < flags_.count) && !context_.out.closed() && context_.out.error() == 0; }
  [[nodiscard]] std::uint64_t records() const { return records_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  /// A screen is no place for megabytes; -o raw and -o jsonl have all of it.
  static std::string shortened(std::string_view text) {
    constexpr std::size_t kShown = 1024;
    if (text.size() <= kShown) return printable(text);
    auto cut = kShown;
    while (cut > kShown - 4 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;  // between characters
    return fmt::format("{}... ({})", printable(text.substr(0, cut)), human_bytes(text.size()));
  }
  void table_line(const Message& message) {
    const bool colour = context_.terminal.colour_stdout;
    auto painted = [&](const char* code, std::string_view text) {
      if (colour) line_ += code;
      line_ += text;
      if (colour) line_ += "\033[0m";
    };
    auto place = fmt::format("{}[{}]@{}", message.topic, message.partition, message.offset);
    place_width_ = std::max(place_width_, place.size());
    painted("\033[2m", format_time(message.time));
    line_ += "  ";
    painted("\033[36m", place);
    line_.append(place_width_ - place.size() + 2, ' ');
    painted("\033[33m", !message.key ? "-" : message.key->empty() ? "\"\"" : shortened(as_text(*message.key)));
    if (!flags_.no_value) {
      line_ += "  ";
      if (message.value) line_ += shortened(as_text(*message.value));
      else painted("\033[2m", "(no value)");
    }
    std::string headers;
    for (const auto& header : message.headers) headers += (headers.empty() ? "" : ", ") + shortened(header.key) + (header.value ? "=" + shortened(*header.value) : "");
    if (!headers.empty()) {
      line_ += "  ";
      painted("\033[2m", "{" + headers + "}");
    }
  }

  Context& context_;
  const TailFlags& flags_;
  Format format_;
  std::string line_;
  std::size_t place_width_ = 0;
  std::uint64_t records_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace tailrace::cli
