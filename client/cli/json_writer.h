#pragma once
/// Writes one JSON value front to back; commas are its business. Field names are ours and need no escaping.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "record_json.h"

namespace tailrace::cli {

class JsonWriter {
 public:
  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name) {
    comma();
    out_ += '"';
    out_ += name;
    out_ += "\":";
    after_key_ = true;
    return *this;
  }
  JsonWriter& value(std::string_view text) {
    comma();
    append_json_bytes(out_, text);
    return *this;
  }
  JsonWriter& value(const char* text) { return value(std::string_view{text}); }
  JsonWriter& value(bool flag) { return raw(flag ? "true" : "false"); }
  JsonWriter& value(std::int64_t number) { return raw(std::to_string(number)); }
  JsonWriter& value(std::uint64_t number) { return raw(std::to_string(number)); }
  JsonWriter& value(std::int32_t number) { return raw(std::to_string(number)); }
  JsonWriter& value(std::uint32_t number) { return raw(std::to_string(number)); }
  JsonWriter& value(std::optional<Time> time) {
    comma();
    if (time) append_json_time(out_, *time);
    else out_ += "null";
    return *this;
  }
  /// A value that is JSON already.
  JsonWriter& json(std::string_view text) { return raw(text); }
  template <class T>
  JsonWriter& field(std::string_view name, const T& v) {
    return key(name).value(v);
  }
  [[nodiscard]] const std::string& text() const { return out_; }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  JsonWriter& raw(std::string_view text) {
    comma();
    out_ += text;
    return *this;
  }
  JsonWriter& open(char c) {
    comma();
    out_ += c;
    return *this;
  }
  JsonWriter& close(char c) {
    out_ += c;
    after_key_ = false;
    return *this;
  }
  void comma() {
    if (after_key_) {
      after_key_ = false;
      return;
    }
    if (!out_.empty() && out_.back() != '{' && out_.back() != '[') out_ += ',';
  }
  std::string out_;
  bool after_key_ = false;
};

}  // namespace tailrace::cli
