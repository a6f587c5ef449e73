#pragma once
/// What a replica is made from, what it keeps durably, and what it is at a moment.
#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "raft/log_view.h"
#include "raft/membership.h"

namespace tailrace::broker::raft {

enum class Role : std::uint8_t {
  follower,       // takes entries from whoever leads its term; an observer when it is not a voter
  pre_candidate,  // asks whether it could win, without raising a term
  candidate,
  leader,
};
[[nodiscard]] std::string_view name_of(Role role);

/// What recovery says of the tail of the log (R5). Ordered: more is worse.
enum class Suspicion : std::uint8_t {
  none,
  cut,   // a torn tail was cut; nothing proves that it had been durable
  lost,  // durable entries are gone, with proof
};

/// Durable in the WAL before any message leaves that depends on it (R1).
struct HardState {
  LeaderEpoch term{0};
  ReplicaId vote{};          // in `term`; kNobody: none
  Suspicion suspicion = Suspicion::none;
  /// While suspicious: vote only for logs at least this long, and stand only with one.
  LogEnd floor{};
  friend bool operator==(const HardState&, const HardState&) = default;
};

/// What the owner's recovery found.
struct Recovered {
  HardState hard{};               // suspicion `cut`: floor covers any offset readable in the cut frames
  LogPosition start{};            // from here on entries can be read
  LeaderEpoch start_term{};
  Membership members{};           // in force at `start`
  std::vector<Mark> marks{};      // ascending, in [start, end)
  std::vector<MembersAt> members_after{};  // one for each mark of kind members
  LogPosition end{};
  LogPosition commit{};           // as far as known: a checkpoint's high watermark; in [start, end]
  Offset log_start{};             // the committed one
};

struct ReplicaOptions {
  Duration election_timeout_min = std::chrono::milliseconds{600};
  Duration election_timeout_max = std::chrono::milliseconds{1'200};
  /// How long a replica that cut a tail waits for the reports of all voters before it may stand (R5).
  Duration report_wait_max = std::chrono::seconds{10};
  std::uint32_t run_bytes_max = 1U << 20;     // of one Append; a single larger batch still goes
  std::uint32_t window_bytes = 8U << 20;      // sent to one follower and not yet durable there
};

}  // namespace tailrace::broker::raft
