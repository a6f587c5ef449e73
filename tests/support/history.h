#pragma once
/// What clients did and saw, and whether a log may behave like that. The rules are those of a log without transactions or
/// groups; each is named in `Rule`, with the exact condition beside it.
///
/// A history is a list of events in order of `index`. Every sent value is unique in its key: (process, counter), with its
/// length and checksum, so that a value that comes back altered is a value that nobody sent. `fail` means certainly without
/// effect, `info` means unknown. Keys are partitions.
///
/// As JSON lines, one event a line; the parts map one to one to EDN:
///   {"index":0,"process":1,"type":"ok","f":"send","invoke":10,"done":25,"ops":[["send","t-0",5,"1.17"]]}
///   {"index":1,"process":2,"type":"ok","f":"poll","invoke":30,"done":31,"ops":[["poll","t-0",5,"1.17"],["poll","t-0",6,"1.18"]]}
/// A value is "process.counter" or "process.counter.length.crc" (crc in hex). An unknown offset is null. f is one of
///   send    micro-ops are the values in order; "batch":true: stored whole or not at all
///   poll    micro-ops are what came, in order; "final":true marks reads of the drain at the end, which begin at the start
///   end     ["end",key,end offset]: a linearizable answer of list-offsets; "start" and "watermark" likewise
///   replay  ["replay",key,from,to,"crc"]: all bytes of [from, to)
///   assign  ["assign",key]...: the process reads exactly these keys from now on; poll state of others is forgotten
///   seek    ["seek",key]: the next poll of key may begin anywhere
///   crash   the process is gone; a later one with its number is another
#include <cstdint>
#include <istream>
#include <limits>
#include <ostream>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"

namespace tailrace::broker::history {

enum class Type : std::uint8_t { ok, fail, info };
enum class Function : std::uint8_t { send, poll, end, replay, assign, seek, crash };
enum class Op : std::uint8_t { send, poll, end, start, watermark, replay, assign, seek };

inline constexpr std::int64_t kUnknown = std::numeric_limits<std::int64_t>::min();

struct Value {
  std::uint32_t process = 0;
  std::uint32_t length = 0;
  std::uint64_t counter = 0;
  std::uint32_t crc = 0;
  friend auto operator<=>(const Value&, const Value&) = default;
};
[[nodiscard]] std::string to_string(const Value& value);

struct MicroOp {
  std::uint32_t event = 0;
  std::uint32_t key : 28 = 0;
  std::uint32_t op : 4 = 0;
  std::int64_t offset = kUnknown;  // of a record; the answer of end, start, watermark; `from` of a replay
  Value value{};                   // a replay keeps `to` in counter and its checksum in crc
  [[nodiscard]] Op kind() const { return static_cast<Op>(op); }
};

struct Event {
  std::uint32_t process = 0;
  Type type = Type::info;
  Function f = Function::send;
  bool final = false;  // a read of the drain
  bool batch = false;  // a send stored whole or not at all
  std::int64_t invoke = 0;
  std::int64_t done = std::numeric_limits<std::int64_t>::max();  // max: never answered
  std::size_t first = 0;  // micro-ops
  std::uint32_t count = 0;
};

/// Recording: sends when they start (their outcome when known), everything else when it is over.
class History {
 public:
  [[nodiscard]] std::uint32_t key(std::string_view name);
  std::size_t send(std::uint32_t process, std::int64_t now, std::uint32_t key, const std::vector<Value>& values, bool batch);
  /// `base_offset` of the first value, the others follow it; kUnknown with fail and info.
  void sent(std::size_t event, Type type, std::int64_t now, std::int64_t base_offset = kUnknown);
  struct Read {
    std::int64_t offset;
    Value value;
  };
  void poll(std::uint32_t process, std::int64_t invoke, std::int64_t done, std::uint32_t key, const std::vector<Read>& reads,
            bool final = false, Type type = Type::ok);
  void end(std::uint32_t process, std::int64_t invoke, std::int64_t done, std::uint32_t key, std::int64_t end,
           std::int64_t start = kUnknown, std::int64_t watermark = kUnknown);
  void replay(std::uint32_t process, std::int64_t invoke, std::int64_t done, std::uint32_t key, std::int64_t from, std::int64_t to,
              std::uint32_t crc);
  void assign(std::uint32_t process, std::int64_t now, const std::vector<std::uint32_t>& keys);
  void seek(std::uint32_t process, std::int64_t now, std::uint32_t key);
  void crash(std::uint32_t process, std::int64_t now);

  /// For readers of files.
  std::size_t add(Event event, const std::vector<MicroOp>& ops);

  [[nodiscard]] const std::vector<Event>& events() const { return events_; }
  [[nodiscard]] const std::vector<MicroOp>& ops() const { return ops_; }
  [[nodiscard]] const std::string& key_name(std::uint32_t key) const { return names_[key]; }
  [[nodiscard]] std::size_t keys() const { return names_.size(); }

 private:
  std::vector<Event> events_;
  std::vector<MicroOp> ops_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::uint32_t> ids_;
};

/// Errors: invalid_argument, with the number of the line.
[[nodiscard]] Result<History> read_json_lines(std::istream& in);
void write_json_lines(const History& history, std::ostream& out);

}  // namespace tailrace::broker::history
