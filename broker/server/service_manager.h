#pragma once
/// The systemd notification protocol (sd_notify(3)): datagrams to the socket that NOTIFY_SOCKET names.
#include <chrono>
#include <optional>
#include <string_view>

namespace tailrace::broker::server {

/// "READY=1", "STOPPING=1", "WATCHDOG=1", several joined by newlines. False: nobody asked for it, or it could not be sent.
bool tell_service_manager(std::string_view state);
/// Half of WATCHDOG_USEC, if this process is watched: how often WATCHDOG=1 is due.
[[nodiscard]] std::optional<std::chrono::microseconds> watchdog_interval();

}  // namespace tailrace::broker::server
