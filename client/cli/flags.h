#pragma once
/// What the command line was parsed into: plain values, so that commands need not know the parser (which is expensive to
/// compile and lives in a few files only).
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "terminal.h"

namespace tailrace::cli {

enum class Format { automatic, table, json, jsonl, raw };

/// On every command.
struct CommonFlags {
  std::string servers;  ///< host:port[,...]; empty: TAILRACE_SERVERS, then 127.0.0.1:7070
  Format output = Format::automatic;
  Colour colour = Colour::automatic;
  bool quiet = false;   ///< no summaries and notes; errors stay
  std::chrono::nanoseconds timeout = std::chrono::seconds{30};
};

struct TopicFlags {
  std::string name;
  std::int32_t partitions = 0;  ///< 0: not given
  std::vector<std::string> config;  ///< key=value
  std::vector<std::string> unset;
  std::vector<std::int32_t> partition;
  std::string before;  ///< purge
  bool internal = false;
  bool if_not_exists = false;
  bool yes = false;
  bool dry_run = false;
};

enum class InputFormat { lines, jsonl, raw };

struct PubFlags {
  std::string topic;
  std::vector<std::string> bodies;
  std::optional<std::string> key;
  std::optional<std::string> key_separator;
  std::optional<std::string> key_regex;
  bool allow_no_key = false;
  std::vector<std::string> headers;
  std::optional<std::int32_t> partition;
  bool keep_partition = false;
  InputFormat format = InputFormat::lines;
  std::vector<std::string> files;
  std::uint64_t count = 0;  ///< 0: all
  double rate = 0;          ///< 0: no limit
  std::uint64_t skip = 0;
  std::string compression = "none";
  std::chrono::nanoseconds linger{0};
  bool tombstone = false;
  bool create = false;
};

struct TailFlags {
  std::string topic;
  std::string from;
  std::string until;
  std::uint64_t count = 0;  ///< 0: no limit
  bool follow = false;
  std::vector<std::int32_t> partitions;
  std::optional<std::string> key;
  std::string out_of_range;  // empty: an error where an offset was named, otherwise the start
  std::string group;         // empty: none
  bool commit = false;       // as a member of it; otherwise only from where it stands
  bool no_value = false;
  bool fail_empty = false;
};

struct GroupFlags {
  std::string group;  // empty: all, where that means something
  std::string topic;
  std::vector<std::int32_t> partitions;
  std::string to;
  std::string undo_file;
  bool apply = false;
  bool kick = false;
  bool watch = false;
  bool yes = false;
  bool dry_run = false;
};

struct StreamFlags {
  std::string name;    // TOPIC/STREAM; of ls: the topic
  std::string prefix;  // of ls
  std::vector<std::string> data;
  std::string expect;
  std::string type;
  std::string id;
  std::optional<std::int64_t> from;  // a version; of truncate: the first that stays
  std::uint64_t count = 0;           // 0: no limit
  bool jsonl = false;
  bool backwards = false;
  bool fail_empty = false;
  bool yes = false;
  bool dry_run = false;
};

struct LogFlags {
  std::string path;
};

/// `server`, `dev` and `config`: where the broker's configuration comes from.
struct ServerFlags {
  std::optional<std::string> file;
  std::optional<std::string> data;
  std::optional<std::string> listen;
  std::optional<std::string> http_listen;
  std::vector<std::string> set;
  bool check = false;
  bool origin = false;
  std::string key;  ///< config explain
  bool ephemeral = false;
  std::string seed;
};

struct BenchFlags {
  std::string kind;  ///< pub, sub, e2e
  std::string topic;  ///< empty: one of its own, deleted afterwards
  std::vector<std::vector<double>> rate;  ///< of each --rate, which may be a list
  bool max = false;
  std::chrono::nanoseconds duration = std::chrono::seconds{10};
  std::chrono::nanoseconds warmup = std::chrono::seconds{1};
  std::uint64_t size = 1024;
  std::uint64_t records = 0;
  std::int32_t partitions = 1;
  int producers = 1;
  std::uint64_t keys = 0;
  std::string compression = "none";
  std::string durability;
  std::string svg;
};

struct GenFlags {
  std::string shell;
  std::uint64_t count = 1000;
  std::uint64_t seed = 1;
};

struct ExplainFlags {
  std::string code;
};

}  // namespace tailrace::cli
