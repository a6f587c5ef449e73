#include <fmt/core.h>

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "tests/support/history.h"

namespace tailrace::broker::history {
namespace {

using Json = nlohmann::json;
constexpr std::array<std::string_view, 3> kTypes{"ok", "fail", "info"};
constexpr std::array<std::string_view, 7> kFunctions{"send", "poll", "end", "replay", "assign", "seek", "crash"};
constexpr std::array<std::string_view, 8> kOps{"send", "poll", "end", "start", "watermark", "replay", "assign", "seek"};

template <class E, std::size_t N>
bool parse_name(const Json& json, const std::array<std::string_view, N>& names, E& into) {
  if (!json.is_string()) return false;
  const auto& text = json.get_ref<const std::string&>();
  for (std::size_t i = 0; i < N; ++i) {
    if (names[i] == text) {
      into = static_cast<E>(i);
      return true;
    }
  }
  return false;
}

template <class T>
bool parse_number(std::string_view& text, T& into, int base = 10) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into, base);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text[0] != c) return false;
  text.remove_prefix(1);
  return true;
}

bool parse_value(const Json& json, Value& into) {
  if (!json.is_string()) return false;
  std::string_view text = json.get_ref<const std::string&>();
  if (!parse_number(text, into.process) || !take(text, '.') || !parse_number(text, into.counter)) return false;
  if (text.empty()) return true;
  return take(text, '.') && parse_number(text, into.length) && take(text, '.') && parse_number(text, into.crc, 16) && text.empty();
}

bool parse_integer(const Json& json, std::int64_t& into) {
  if (json.is_null()) {
    into = kUnknown;
    return true;
  }
  if (!json.is_number_integer()) return false;
  into = json.get<std::int64_t>();
  return true;
}

/// Empty when good, else what is wrong.
std::string parse_op(const Json& json, History& history, MicroOp& into) {
  Op kind{};
  if (!json.is_array() || json.size() < 2 || !parse_name(json[0], kOps, kind) || !json[1].is_string()) return "a micro-op is [name, key, ...]";
  into.op = static_cast<std::uint32_t>(kind) & 0xf;
  into.key = history.key(json[1].get_ref<const std::string&>()) & 0xfffffff;
  switch (kind) {
    case Op::send:
      if (json.size() != 4 || !parse_integer(json[2], into.offset) || !parse_value(json[3], into.value)) return "a send is [\"send\", key, offset or null, value]";
      return {};
    case Op::poll:
      if (json.size() == 2) return {};
      if (json.size() != 4 || !parse_integer(json[2], into.offset) || !parse_value(json[3], into.value)) return "a poll is [\"poll\", key] or [\"poll\", key, offset, value]";
      return {};
    case Op::end:
    case Op::start:
    case Op::watermark:
      if (json.size() != 3 || !parse_integer(json[2], into.offset)) return "an answer is [name, key, offset]";
      return {};
    case Op::replay: {
      std::int64_t to = 0;
      if (json.size() != 5 || !parse_integer(json[2], into.offset) || !parse_integer(json[3], to) || !json[4].is_string()) return "a replay is [\"replay\", key, from, to, crc]";
      into.value.counter = static_cast<std::uint64_t>(to);
      std::string_view crc = json[4].get_ref<const std::string&>();
      return parse_number(crc, into.value.crc, 16) && crc.empty() ? "" : "a checksum is hexadecimal";
    }
    case Op::assign:
    case Op::seek: return {};
  }
  return "an unknown micro-op";
}

std::string parse_event(const Json& json, History& history) {
  if (!json.is_object()) return "a line is one JSON object";
  Event event;
  auto field = [&](const char* name) -> const Json& {
    static const Json kNone;
    auto found = json.find(name);
    return found == json.end() ? kNone : *found;
  };
  std::int64_t process = 0;
  if (!parse_integer(field("process"), process) || process < 0) return "process is a number";
  event.process = static_cast<std::uint32_t>(process);
  if (!parse_name(field("type"), kTypes, event.type)) return "type is ok, fail or info";
  if (!parse_name(field("f"), kFunctions, event.f)) return "f is not known";
  if (!parse_integer(field("invoke"), event.invoke) || event.invoke == kUnknown) return "invoke is a number";
  std::int64_t done = kUnknown;
  if (!parse_integer(field("done"), done)) return "done is a number or null";
  if (done != kUnknown) event.done = done;
  event.final = field("final").is_boolean() && field("final").get<bool>();
  event.batch = field("batch").is_boolean() && field("batch").get<bool>();
  std::vector<MicroOp> ops;
  const Json& list = field("ops");
  if (!list.is_null() && !list.is_array()) return "ops is a list";
  for (const Json& item : list) {
    MicroOp op;
    if (auto wrong = parse_op(item, history, op); !wrong.empty()) return wrong;
    ops.push_back(op);
  }
  history.add(event, ops);
  return {};
}

}  // namespace

Result<History> read_json_lines(std::istream& in) {
  History history;
  std::string line;
  for (std::size_t number = 1; std::getline(in, line); ++number) {
    if (line.empty()) continue;
    Json json = Json::parse(line, nullptr, false);
    std::string wrong = json.is_discarded() ? "not JSON" : parse_event(json, history);
    if (!wrong.empty()) return fail(Errc::invalid_argument, fmt::format("line {}: {}", number, wrong));
  }
  return history;
}

void write_json_lines(const History& history, std::ostream& out) {
  std::string line;
  auto integer = [](std::int64_t value) { return value == kUnknown ? std::string{"null"} : std::to_string(value); };
  for (std::size_t i = 0; i < history.events().size(); ++i) {
    const Event& e = history.events()[i];
    line = fmt::format(R"({{"index":{},"process":{},"type":"{}","f":"{}","invoke":{},"done":{})", i, e.process, kTypes[static_cast<std::size_t>(e.type)],
                       kFunctions[static_cast<std::size_t>(e.f)], e.invoke, e.done == std::numeric_limits<std::int64_t>::max() ? "null" : std::to_string(e.done));
    if (e.final) line += R"(,"final":true)";
    if (e.batch) line += R"(,"batch":true)";
    line += R"(,"ops":[)";
    for (std::uint32_t j = 0; j < e.count; ++j) {
      const MicroOp& op = history.ops()[e.first + j];
      if (j > 0) line += ',';
      line += fmt::format("[\"{}\",{}", kOps[op.op], Json(history.key_name(op.key)).dump());
      switch (op.kind()) {
        case Op::send: line += fmt::format(",{},\"{}\"", integer(op.offset), to_string(op.value)); break;
        case Op::poll:
          if (op.offset != kUnknown) line += fmt::format(",{},\"{}\"", op.offset, to_string(op.value));
          break;
        case Op::end:
        case Op::start:
        case Op::watermark: line += fmt::format(",{}", integer(op.offset)); break;
        case Op::replay: line += fmt::format(",{},{},\"{:08x}\"", op.offset, static_cast<std::int64_t>(op.value.counter), op.value.crc); break;
        case Op::assign:
        case Op::seek: break;
      }
      line += ']';
    }
    line += "]}\n";
    out << line;
  }
}

}  // namespace tailrace::broker::history
