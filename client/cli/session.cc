#include "session.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdlib>

#include "text.h"

namespace tailrace::cli {
namespace {

constexpr std::chrono::milliseconds kUnreachableAfter{2'000};

/// Tells a person about a lost connection once, and about its return, not about every attempt.
struct EventNotes {
  bool quiet = false;
  std::atomic<bool> was_connected{false};
  std::atomic<bool> lost{false};
  void on(const ClientEvent& event) {
    switch (event.kind) {
      case ClientEvent::Kind::connected:
        if (was_connected.exchange(true) && lost.exchange(false) && !quiet) note(fmt::format("connected again: {}", event.message));
        break;
      case ClientEvent::Kind::disconnected:
        if (was_connected && !lost.exchange(true) && !quiet) note(fmt::format("warn {}", event.message));
        break;
      case ClientEvent::Kind::callback_failed: note(fmt::format("warn {}", event.message)); break;
      case ClientEvent::Kind::connecting:
      case ClientEvent::Kind::retrying:
      case ClientEvent::Kind::closed: break;
    }
  }
};

}  // namespace

std::vector<std::string> servers_of(const CommonFlags& flags, const char* environment) {
  std::string list = !flags.servers.empty() ? flags.servers : environment != nullptr ? environment : "";
  std::vector<std::string> servers;
  std::size_t at = 0;
  while (at <= list.size()) {
    auto comma = std::min(list.find(',', at), list.size());
    auto one = list.substr(at, comma - at);
    while (one.starts_with(' ')) one.erase(0, 1);
    while (one.ends_with(' ')) one.pop_back();
    if (!one.empty()) servers.push_back(one);
    at = comma + 1;
  }
  if (servers.empty()) servers.emplace_back("127.0.0.1:7070");
  return servers;
}

Outcome<Session> Session::open(const Context& context) {
  Session session;
  session.timeout_ = std::max(std::chrono::milliseconds{1}, std::chrono::duration_cast<std::chrono::milliseconds>(context.flags.timeout));
  auto notes = std::make_shared<EventNotes>();
  notes->quiet = context.flags.quiet;
  ClientOptions options;
  options.servers = servers_of(context.flags, std::getenv("TAILRACE_SERVERS"));
  options.client_id = "tailrace-cli";
  if (const char* id = std::getenv("TAILRACE_CLIENT_ID"); id != nullptr && *id != '\0') options.client_id = id;
  options.request_timeout = session.timeout_;
  options.unreachable_after = std::min(kUnreachableAfter, session.timeout_);
  options.connect_timeout = std::min(options.connect_timeout, session.timeout_);
  options.on_event = [notes](const ClientEvent& event) { notes->on(event); };
  for (const auto& server : options.servers) session.name_ += (session.name_.empty() ? "" : ",") + server;
  auto client = Client::open(std::move(options));
  if (!client) return usage(client.error().message.empty() ? "--servers is not valid" : client.error().message, "Write --servers host:port[,host:port]");
  session.client_ = std::move(*client);
  // The client gives up by itself, and says why; this bound only catches one that does not.
  constexpr std::chrono::milliseconds kGrace{500};
  const auto give_up = std::chrono::steady_clock::now() + session.timeout_ + kGrace;
  const auto connected = session.client_.connected();
  while (!connected.get_for(kAskForInterrupt)) {
    if (interrupt::requested()) return failed(Errc::cancelled, fmt::format("interrupted while connecting to {}", session.name_));
    if (std::chrono::steady_clock::now() >= give_up) return failed(Errc::unreachable, fmt::format("no answer from {} within {}", session.name_, human_duration(session.timeout_)));
  }
  if (auto outcome = connected.get(); !outcome) return std::unexpected(session.failure(outcome.error()));
  return session;
}

namespace {
/// The SDK names its options; here they are flags.
std::string in_words_of_flags(std::string message, std::chrono::milliseconds timeout) {
  for (std::string_view option : {"delivery_timeout", "request_timeout"}) {
    if (const auto at = message.find(option); at != std::string::npos) message.replace(at, option.size(), fmt::format("--timeout ({})", human_duration(timeout)));
  }
  return message;
}
}  // namespace

Failure Session::failure(const Error& error, std::string_view topic, Advice advice) {
  Failure failure{error.code, in_words_of_flags(error.message, timeout_), error.hint};
  if (error.maybe_applied && describe(error.code).exit_code == kFailed) failure.exit_code = kUnknown;
  switch (error.code) {
    case Errc::no_such_topic: {
      failure.message = fmt::format("topic \"{}\" does not exist on {}", topic, name_);
      failure.hint.clear();
      if (auto topics = admin().list_topics().get_for(std::chrono::milliseconds{1'000}); topics && *topics) {
        std::vector<std::string> names;
        for (const auto& t : **topics) names.push_back(t.name);
        std::string close;
        for (const auto& name : close_names(topic, names)) close += (close.empty() ? "" : ", ") + name;
        if (!close.empty()) failure.hint = fmt::format("Close names: {}. ", close);
      }
      failure.hint += advice == Advice::create_it ? fmt::format("Create it: tailrace topic create {}", topic) : std::string{"All: tailrace topic ls"};
      break;
    }
    case Errc::unreachable:
      // Something listens there and speaks, only not our protocol.
      if (failure.message.find("protocol error") == std::string::npos) break;
      [[fallthrough]];
    case Errc::protocol: failure.hint = "Is it the native port of a Tailrace broker (7070)? Its HTTP port (7080) speaks another protocol"; break;
    case Errc::cancelled: failure.hint = kNoHint; break;
    case Errc::timeout: failure.hint = "Retry, or allow more with --timeout"; break;
    case Errc::no_such_partition: failure.hint = fmt::format("See: tailrace topic describe {}", topic); break;
    case Errc::offset_out_of_range: {
      auto start = error.at.find("log_start"), end = error.at.find("log_end"), partition = error.at.find("partition");
      if (start != error.at.end() && end != error.at.end()) {
        failure.message = fmt::format("{}[{}] holds offsets {} to {} (end exclusive), not the one asked for", topic,
                                      partition != error.at.end() ? partition->second : "?", start->second, end->second);
        failure.hint = "Read from start, end, a time or an offset in that range, or say --out-of-range start";
      }
      break;
    }
    default: break;
  }
  return failure;
}

}  // namespace tailrace::cli
