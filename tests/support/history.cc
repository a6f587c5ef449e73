#include "tests/support/history.h"

#include <fmt/core.h>

#include "base/check.h"

namespace tailrace::broker::history {

std::string to_string(const Value& value) {
  if (value.length == 0 && value.crc == 0) return fmt::format("{}.{}", value.process, value.counter);
  return fmt::format("{}.{}.{}.{:08x}", value.process, value.counter, value.length, value.crc);
}

std::uint32_t History::key(std::string_view name) {
  auto [found, fresh] = ids_.try_emplace(std::string{name}, static_cast<std::uint32_t>(names_.size()));
  if (fresh) names_.emplace_back(name);
  return found->second;
}

std::size_t History::add(Event event, const std::vector<MicroOp>& ops) {
  event.first = ops_.size();
  event.count = static_cast<std::uint32_t>(ops.size());
  for (MicroOp op : ops) {
    op.event = static_cast<std::uint32_t>(events_.size());
    ops_.push_back(op);
  }
  events_.push_back(event);
  return events_.size() - 1;
}

namespace {

MicroOp make(Op op, std::uint32_t key, std::int64_t offset = kUnknown, Value value = {}) {
  MicroOp out;
  out.key = key & 0xfffffff;
  out.op = static_cast<std::uint32_t>(op) & 0xf;
  out.offset = offset;
  out.value = value;
  return out;
}

}  // namespace

std::size_t History::send(std::uint32_t process, std::int64_t now, std::uint32_t key, const std::vector<Value>& values, bool batch) {
  std::vector<MicroOp> ops;
  for (const Value& value : values) ops.push_back(make(Op::send, key, kUnknown, value));
  return add({.process = process, .type = Type::info, .f = Function::send, .batch = batch, .invoke = now}, ops);
}

void History::sent(std::size_t event, Type type, std::int64_t now, std::int64_t base_offset) {
  TAILRACE_CHECK(event < events_.size() && events_[event].f == Function::send, "an outcome belongs to a recorded send");
  Event& e = events_[event];
  e.type = type;
  e.done = now;
  for (std::uint32_t i = 0; i < e.count; ++i) {
    ops_[e.first + i].offset = base_offset == kUnknown ? kUnknown : base_offset + i;
  }
}

void History::poll(std::uint32_t process, std::int64_t invoke, std::int64_t done, std::uint32_t key, const std::vector<Read>& reads,
                   bool final, Type type) {
  std::vector<MicroOp> ops;
  ops.reserve(reads.size());
  for (const Read& read : reads) ops.push_back(make(Op::poll, key, read.offset, read.value));
  if (ops.empty()) ops.push_back(make(Op::poll, key));  // an empty poll still says which key it was of
  add({.process = process, .type = type, .f = Function::poll, .final = final, .invoke = invoke, .done = done}, ops);
}

void History::end(std::uint32_t process, std::int64_t invoke, std::int64_t done, std::uint32_t key, std::int64_t end, std::int64_t start,
                  std::int64_t watermark) {
  std::vector<MicroOp> ops{make(Op::end, key, end)};
  if (start != kUnknown) ops.push_back(make(Op::start, key, start));
  if (watermark != kUnknown) ops.push_back(make(Op::watermark, key, watermark));
  add({.process = process, .type = Type::ok, .f = Function::end, .invoke = invoke, .done = done}, ops);
}

void History::replay(std::uint32_t process, std::int64_t invoke, std::int64_t done, std::uint32_t key, std::int64_t from, std::int64_t to,
                     std::uint32_t crc) {
  Value value;
  value.counter = static_cast<std::uint64_t>(to);
  value.crc = crc;
  add({.process = process, .type = Type::ok, .f = Function::replay, .invoke = invoke, .done = done}, {make(Op::replay, key, from, value)});
}

void History::assign(std::uint32_t process, std::int64_t now, const std::vector<std::uint32_t>& keys) {
  std::vector<MicroOp> ops;
  for (auto key : keys) ops.push_back(make(Op::assign, key));
  add({.process = process, .type = Type::ok, .f = Function::assign, .invoke = now, .done = now}, ops);
}

void History::seek(std::uint32_t process, std::int64_t now, std::uint32_t key) {
  add({.process = process, .type = Type::ok, .f = Function::seek, .invoke = now, .done = now}, {make(Op::seek, key)});
}

void History::crash(std::uint32_t process, std::int64_t now) {
  add({.process = process, .type = Type::info, .f = Function::crash, .invoke = now, .done = now}, {});
}

}  // namespace tailrace::broker::history
