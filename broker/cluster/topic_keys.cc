#include "cluster/topic_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>

namespace tailrace::broker::cluster {
namespace {

using std::chrono::milliseconds;

constexpr std::array<TopicKeyInfo, kTopicKeyCount> kKeys{{
    {TopicKey::retention_time, "retention_time", "unlimited, or a time of at least 1s, as \"7d\"",
     "Records older than this, by the time the broker appended them, may be deleted; unlimited keeps them for ever."},
    {TopicKey::retention_bytes, "retention_bytes", "unlimited, or a size of at least 1B, as \"10GiB\"",
     "A partition larger than this loses its oldest segments; unlimited keeps them for ever."},
    {TopicKey::segment_bytes_max, "segment_bytes_max", "a size from 4KiB to 1GiB",
     "A segment file is sealed at this size; retention deletes whole sealed segments."},
    {TopicKey::message_bytes_max, "message_bytes_max", "a size from 1KiB to 32MiB, at most segment_bytes_max",
     "The largest record batch accepted, as encoded by the producer."},
    {TopicKey::timestamp_type, "timestamp_type", "create_time or log_append_time",
     "Whether a record carries its producer's time or the time the broker appended it."},
    {TopicKey::cleanup_policy, "cleanup_policy", "delete",
     "What retention does with old records: delete removes whole segments."},
    {TopicKey::durability, "durability", "quorum, leader or relaxed",
     "When a record is acknowledged: on stable storage of a majority of replicas, of the leader, or in memory only."},
    {TopicKey::streams, "streams", "true or false",
     "Event streams with expected versions (docs/event-store.md): partitions, and this key, stay as they were made; nothing is deleted by age or size."},
}};

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr std::array<Unit, 7> kTimeUnits{{{"ms", 1}, {"s", 1'000}, {"m", 60'000}, {"min", 60'000}, {"h", 3'600'000},
                                          {"d", 86'400'000}, {"w", 604'800'000}}};
constexpr std::array<Unit, 8> kSizeUnits{{{"B", 1}, {"KiB", 1ULL << 10}, {"MiB", 1ULL << 20}, {"GiB", 1ULL << 30},
                                          {"TiB", 1ULL << 40}, {"kB", 1'000}, {"MB", 1'000'000}, {"GB", 1'000'000'000}}};
// Printed units, largest first. Weeks and decimal sizes are read but never printed.
constexpr std::array<Unit, 5> kTimePrint{{{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}}};
constexpr std::array<Unit, 5> kSizePrint{{{"TiB", 1ULL << 40}, {"GiB", 1ULL << 30}, {"MiB", 1ULL << 20}, {"KiB", 1ULL << 10}, {"B", 1}}};

constexpr std::uint64_t kValueMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

/// A whole number with a unit of `units`; a bare number takes `bare`, when there is one.
std::optional<std::uint64_t> parse_with_unit(std::string_view text, std::span<const Unit> units, std::optional<std::uint64_t> bare) {
  std::uint64_t number = 0;
  auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return std::nullopt;
  std::string_view unit{rest, static_cast<std::size_t>(text.data() + text.size() - rest)};
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  std::optional<std::uint64_t> factor = bare;
  if (!unit.empty()) {
    auto at = std::ranges::find(units, unit, &Unit::name);
    if (at == units.end()) return std::nullopt;
    factor = at->factor;
  }
  if (!factor || number > kValueMax / *factor) return std::nullopt;
  return number * *factor;
}

std::string print_with_unit(std::uint64_t value, std::span<const Unit> units) {
  for (const Unit& unit : units) {
    if (value >= unit.factor && value % unit.factor == 0) return fmt::format("{}{}", value / unit.factor, unit.name);
  }
  return fmt::format("{}{}", value, units.back().name);
}

std::unexpected<Error> bad(TopicKey key, std::string_view text) {
  const TopicKeyInfo& info = info_of(key);
  return fail(Errc::invalid_argument, fmt::format("{}: \"{}\" is not valid; expected {}", info.name, text.substr(0, 100), info.values));
}

Result<std::uint64_t> bounded_size(TopicKey key, std::string_view text, std::uint64_t low, std::uint64_t high) {
  auto value = parse_size(text);
  if (!value || *value < low || *value > high) return bad(key, text);
  return *value;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      std::size_t above = row[j];
      std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({change, above + 1, row[j - 1] + 1});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::span<const TopicKeyInfo, kTopicKeyCount> topic_keys() { return kKeys; }

const TopicKeyInfo& info_of(TopicKey key) { return kKeys[static_cast<std::size_t>(key)]; }

std::string_view nearest_name(std::string_view text, std::span<const std::string_view> known) {
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(1, text.size() / 3) + 1;
  if (text.size() > 100) return best;  // nothing of ours is near, and the table below is quadratic
  for (std::string_view name : known) {
    std::size_t distance = edit_distance(text, name);
    if (distance < best_distance) {
      best = name;
      best_distance = distance;
    }
  }
  return best;
}

Result<TopicKey> topic_key_named(std::string_view name) {
  std::array<std::string_view, kTopicKeyCount> names;
  for (const TopicKeyInfo& info : kKeys) {
    if (info.name == name) return info.key;
    names[static_cast<std::size_t>(info.key)] = info.name;
  }
  std::string detail = fmt::format("\"{}\" is not a topic key", name.substr(0, 100));
  if (auto near = nearest_name(name, names); !near.empty()) {
    detail += fmt::format("; did you mean {}?", near);
  } else {
    detail += fmt::format("; keys are {}", fmt::join(names, ", "));
  }
  return fail(Errc::unknown_key, std::move(detail));
}

Result<milliseconds> parse_duration(std::string_view text) {
  auto value = parse_with_unit(text, kTimeUnits, std::nullopt);
  if (!value) {
    return fail(Errc::invalid_argument,
                fmt::format("\"{}\" is not a time: a whole number with ms, s, m, h, d or w", text.substr(0, 100)));
  }
  return milliseconds{static_cast<std::int64_t>(*value)};
}

Result<std::uint64_t> parse_size(std::string_view text) {
  auto value = parse_with_unit(text, kSizeUnits, 1);
  if (!value) {
    return fail(Errc::invalid_argument,
                fmt::format("\"{}\" is not a size: a whole number with B, KiB, MiB, GiB, TiB, kB, MB or GB", text.substr(0, 100)));
  }
  return *value;
}

std::string print_duration(milliseconds value) {
  return print_with_unit(static_cast<std::uint64_t>(std::max<std::int64_t>(value.count(), 0)), kTimePrint);
}

std::string print_size(std::uint64_t bytes) { return print_with_unit(bytes, kSizePrint); }

Result<void> set_topic_key(TopicConfig& config, TopicKey key, std::string_view text) {
  switch (key) {
    case TopicKey::retention_time: {
      if (text == "unlimited") {
        config.retention_time.reset();
        return {};
      }
      auto value = parse_duration(text);
      if (!value || *value < std::chrono::seconds{1}) return bad(key, text);
      config.retention_time = *value;
      return {};
    }
    case TopicKey::retention_bytes: {
      if (text == "unlimited") {
        config.retention_bytes.reset();
        return {};
      }
      auto value = parse_size(text);
      if (!value || *value == 0) return bad(key, text);  // who says 0 means no limit, and would lose all but the newest segment
      config.retention_bytes = *value;
      return {};
    }
    case TopicKey::segment_bytes_max: {
      TAILRACE_TRY(config.segment_bytes_max, bounded_size(key, text, limits::kSegmentBytesMin, limits::kSegmentBytesCeiling));
      return {};
    }
    case TopicKey::message_bytes_max: {
      TAILRACE_TRY(config.message_bytes_max, bounded_size(key, text, limits::kKiB, limits::kMessageBytesCeiling));
      return {};
    }
    case TopicKey::timestamp_type: {
      if (text == "create_time") config.timestamp_type = TimestampType::create_time;
      else if (text == "log_append_time") config.timestamp_type = TimestampType::log_append_time;
      else return bad(key, text);
      return {};
    }
    case TopicKey::cleanup_policy: {
      if (text != "delete") return bad(key, text);
      config.cleanup_policy = CleanupPolicy::remove;
      return {};
    }
    case TopicKey::durability: {
      if (text == "quorum") config.durability = Durability::quorum;
      else if (text == "leader") config.durability = Durability::leader;
      else if (text == "relaxed") config.durability = Durability::relaxed;
      else return bad(key, text);
      return {};
    }
    case TopicKey::streams: {
      if (text != "true" && text != "false") return bad(key, text);
      config.streams = text == "true";
      return {};
    }
  }
  return fail(Errc::internal, "a topic key without a rule");
}

std::string print_topic_key(const TopicConfig& config, TopicKey key) {
  switch (key) {
    case TopicKey::retention_time: return config.retention_time ? print_duration(*config.retention_time) : "unlimited";
    case TopicKey::retention_bytes: return config.retention_bytes ? print_size(*config.retention_bytes) : "unlimited";
    case TopicKey::segment_bytes_max: return print_size(config.segment_bytes_max);
    case TopicKey::message_bytes_max: return print_size(config.message_bytes_max);
    case TopicKey::timestamp_type:
      return config.timestamp_type == TimestampType::create_time ? "create_time" : "log_append_time";
    case TopicKey::cleanup_policy: return "delete";
    case TopicKey::durability:
      switch (config.durability) {
        case Durability::quorum: return "quorum";
        case Durability::leader: return "leader";
        case Durability::relaxed: return "relaxed";
      }
      return {};
    case TopicKey::streams: return config.streams ? "true" : "false";
  }
  return {};
}

Result<void> add_setting(TopicSettings& settings, std::string_view name, std::string_view text) {
  TAILRACE_TRY(TopicKey key, topic_key_named(name));
  TopicConfig scratch;
  TAILRACE_TRY_VOID(set_topic_key(scratch, key, text));
  settings[key] = print_topic_key(scratch, key);
  return {};
}

Result<TopicConfig> effective_config(const TopicConfig& defaults, const TopicSettings& settings) {
  TopicConfig config = defaults;
  for (const auto& [key, text] : settings) TAILRACE_TRY_VOID(set_topic_key(config, key, text));
  if (config.message_bytes_max > config.segment_bytes_max) {
    bool message_set = settings.contains(TopicKey::message_bytes_max);
    bool segment_set = settings.contains(TopicKey::segment_bytes_max);
    if (message_set && segment_set) {
      return fail(Errc::invalid_argument,
                  fmt::format("message_bytes_max ({}) is larger than segment_bytes_max ({}): a largest batch must fit a segment",
                              print_size(config.message_bytes_max), print_size(config.segment_bytes_max)));
    }
    if (message_set) config.segment_bytes_max = config.message_bytes_max;
    else config.message_bytes_max = config.segment_bytes_max;
  }
  if (config.streams) {
    // Versions are counted from the first event on: none may go. What the broker's defaults say of other topics does not count here.
    for (TopicKey key : {TopicKey::retention_time, TopicKey::retention_bytes, TopicKey::cleanup_policy}) {
      auto set = settings.find(key);
      if (set == settings.end() || set->second == print_topic_key(TopicConfig{}, key)) continue;
      return fail(Errc::invalid_argument, fmt::format("{}: a topic of event streams keeps all its events; leave this key out", info_of(key).name));
    }
    config.retention_time.reset();
    config.retention_bytes.reset();
    config.cleanup_policy = CleanupPolicy::remove;
  }
  return config;
}

}  // namespace tailrace::broker::cluster
