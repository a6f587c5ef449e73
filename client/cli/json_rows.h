#pragma once
/// Rows as JSON: with -o json all of them in one object, with -o jsonl one a line. Each row is an object that its caller writes.
#include <string_view>
#include <utility>

#include "context.h"
#include "json_writer.h"

namespace tailrace::cli {

class JsonRows {
 public:
  /// `schema` and `key` are of the object that holds them all.
  JsonRows(Context& context, std::string_view schema, std::string_view key) : context_{context}, lines_{context.flags.output == Format::jsonl} {
    if (!lines_) json_.begin_object().field("schema", schema).key(key).begin_array();
  }
  /// `write(JsonWriter&)` writes one object.
  template <class Write>
  void add(Write write) {
    write(json_);
    if (lines_) context_.out.write(std::exchange(json_, JsonWriter{}).take() + "\n");
  }
  void finish() {
    if (!lines_) context_.out.write(json_.end_array().end_object().take() + "\n");
  }

 private:
  Context& context_;
  bool lines_;
  JsonWriter json_{};
};

}  // namespace tailrace::cli
