#pragma once
/// Event streams with expected versions, on a topic made with `streams=true`.
///
///     auto orders = client.events("orders");
///     auto history = orders.read("cart-7").get();
///     auto stored = orders.append("cart-7", Expected::exactly(history->last_version), {{.id = "e3", .type = "added", .data = "..."}}).get();
///     if (!stored && stored.error().code == Errc::wrong_version) ...   // somebody else was first: stored.error().at["actual_version"]
///
/// An append is all or nothing. With Expected::none() and exactly() it may be repeated as often as one likes: events whose ids stand at that
/// very place are answered as `duplicate`, so these appends are sent again by themselves when a connection is lost. With any() and exists()
/// a lost answer is connection_lost, maybe_applied.
/// Threads  all members may be called from any thread.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tailrace/record.h"

namespace tailrace {
inline namespace v1 {

namespace detail {
class ClientCore;
}

/// Number of earlier events of the stream, from 0; -1: none.
using Version = std::int64_t;

/// What an append expects of its stream.
class Expected {
 public:
  enum class Kind : std::uint8_t { none, exactly, exists, any };
  [[nodiscard]] static Expected none() { return Expected{Kind::none, -1}; }               ///< it never had an event
  [[nodiscard]] static Expected exactly(Version last) { return Expected{Kind::exactly, last}; }  ///< -1 is none()
  [[nodiscard]] static Expected exists() { return Expected{Kind::exists, -1}; }
  [[nodiscard]] static Expected any() { return Expected{Kind::any, -1}; }
  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] Version version() const { return version_; }

 private:
  Expected(Kind kind, Version version) : kind_{kind == Kind::exactly && version == -1 ? Kind::none : kind}, version_{version} {}
  Kind kind_;
  Version version_;
};

/// An event to append.
struct NewEvent {
  std::string id{};    ///< 1 to 64 bytes, unique in the append
  std::string type{};  ///< 1 to 255 bytes
  std::string data{};
  std::vector<Header> headers{};  ///< the user's own
  std::optional<Instant> time{};  ///< default: now
};

struct Event {
  Version version = 0;
  std::int64_t offset = 0;
  std::string id{};
  std::string type{};
  std::string data{};
  std::vector<Header> headers{};  ///< without the two that carry id and type
  Instant time{};
};

struct Appended {
  Version first_version = 0;
  Version last_version = 0;
  std::int32_t partition = 0;
  std::int64_t offset = 0;  ///< of the first event
  bool duplicate = false;   ///< stored before, as these versions
};

struct StreamInfo {
  std::string stream{};
  Version last_version = -1;
  Version first_version = 0;  ///< events below are truncated; last + 1: all are
  Instant time{};             ///< of the last append
  std::int32_t partition = -1;  ///< -1: not told (list())
};

struct ReadStream {
  Version from = 0;        ///< backwards: -1 is the last
  bool backwards = false;
  std::uint32_t max = 1'000;  ///< events, 1 to 1,000; about 1 MiB at most
};
struct StreamEvents {
  std::vector<Event> events{};  ///< in order of reading
  Version last_version = -1;    ///< of the stream, when it was read
  Version first_version = 0;
  bool end = false;             ///< nothing is behind the last of them
  Version next = 0;             ///< where to go on
};

class EventStore {
 public:
  EventStore() = default;

  /// Errors: wrong_version (at: actual_version, -1 for none; actual_time_ms), invalid_argument, invalid_record, too_large, no_such_topic,
  /// not_a_stream_topic, no_credit, outcome_unknown, connection_lost.
  Task<Appended> append(std::string_view stream, Expected expected, const std::vector<NewEvent>& events);
  /// Errors: no_such_stream, invalid_argument (from is past the end).
  Task<StreamEvents> read(std::string_view stream, ReadStream options = {});
  /// Names that begin with `prefix`, in order of their bytes, behind `after`; at most `limit` (1 to 1,000).
  Task<std::vector<StreamInfo>> list(std::string_view prefix = {}, std::string_view after = {}, std::uint32_t limit = 1'000);
  /// Errors: no_such_stream.
  Task<StreamInfo> describe(std::string_view stream);
  /// Hides events below `before`; versions go on. Errors: no_such_stream, invalid_argument (before is past the end).
  Task<StreamInfo> truncate(std::string_view stream, Version before);
  /// Hides all events there are; versions go on, and none() stays wrong.
  Task<StreamInfo> delete_stream(std::string_view stream);

  EventStore(std::shared_ptr<detail::ClientCore> core, std::string topic) : core_{std::move(core)}, topic_{std::move(topic)} {}

 private:
  Task<StreamInfo> hide(std::string_view stream, std::optional<Version> before);
  std::shared_ptr<detail::ClientCore> core_{};
  std::string topic_{};
};

}  // namespace v1
}  // namespace tailrace
