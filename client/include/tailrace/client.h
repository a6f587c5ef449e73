#pragma once
/// The way in.
///
///     ClientOptions options{.servers = {"127.0.0.1:7070"}, .client_id = "billing-3"};
///     auto client = Client::open(options);          // checks the options; connects in the background
///     if (!client) return fail(client.error());
///     auto producer = client->producer();
///     auto consumer = client->consumer("orders", {.start = From::earliest()});
///     ...
///     client->close(10s);                           // or let the last handle go
///
/// A client is one connection to a broker, one I/O thread and one callback thread, shared by every producer, consumer and
/// admin made from it. It connects by itself to the first of `servers` that answers, tries the next one when a connection
/// is lost, and never gives up until it is closed; `on_event` says what it is doing. Loss of the broker is not an error
/// by itself: calls wait for it until their deadline.
///
/// All handles are cheap to copy. A client may have static storage, may be closed inside a callback, twice, and with the
/// broker gone: close() returns by its deadline. Nothing is global, and nothing needs initialising.
/// Threads  any, for every member.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tailrace/admin.h"
#include "tailrace/consumer.h"
#include "tailrace/event_store.h"
#include "tailrace/executor.h"
#include "tailrace/group_consumer.h"
#include "tailrace/producer.h"

namespace tailrace {
inline namespace v1 {

/// Something a person may want to see. Never carries payloads.
struct ClientEvent {
  enum class Level : std::uint8_t { debug, info, warn };
  enum class Kind : std::uint8_t { connecting, connected, disconnected, retrying, callback_failed, closed };
  Level level = Level::info;
  Kind kind = Kind::connecting;
  std::string message{};
};

struct ClientOptions {
  std::vector<std::string> servers{"127.0.0.1:7070"};  ///< host:port; tried in turn
  std::string client_id{};                             ///< shown to the operator
  Milliseconds connect_timeout{5s};                    ///< per attempt, name look-up and greeting included
  Milliseconds request_timeout{30s};                   ///< of admin calls
  /// A call of Admin, or a subscription, that was never sent gives up with `unreachable` when every server has failed for this
  /// long. 0: not before its own timeout. Records do not: they wait for a broker for their delivery_timeout.
  Milliseconds unreachable_after{5s};
  Milliseconds reconnect_backoff{50};                  ///< first pause; doubles, with jitter, up to
  Milliseconds reconnect_backoff_max{2s};
  std::size_t memory_limit = 64u << 20;                ///< of unacknowledged records, all producers together
  Executor callbacks{};                                ///< default: the client's own callback thread
  std::function<void(const ClientEvent&)> on_event{};  ///< on the executor

  /// Defaults, overridden by TAILRACE_SERVERS (comma separated) and TAILRACE_CLIENT_ID.
  [[nodiscard]] static Result<ClientOptions> load();
  /// All problems, each with the option's name and what would be accepted.
  [[nodiscard]] std::vector<Error> validate() const;
};

class Client {
 public:
  Client() = default;

  /// Errors: invalid_argument (the first of validate()). Does not wait for a broker: see connected().
  [[nodiscard]] static Result<Client> open(ClientOptions options = {});

  /// Completes when a broker has greeted us. Errors: unreachable, with what each server said.
  Task<void> connected();

  [[nodiscard]] Result<Producer> producer(ProducerOptions options = {});
  /// Waits for the topic's partitions and start positions to be known, at most request_timeout. Errors: invalid_argument,
  /// no_such_topic, no_such_partition, unreachable, timeout, closed. An offset out of range is told by next().
  [[nodiscard]] Result<Consumer> consumer(std::string_view topic, ConsumerOptions options = {});
  /// Joins the group; next() waits until it may read. Does not wait for a broker. Errors: invalid_argument, closed.
  [[nodiscard]] Result<GroupConsumer> group_consumer(std::string_view group, std::vector<std::string> topics, GroupOptions options = {});
  [[nodiscard]] Admin admin();
  /// The event streams of a topic that was made for them. Does not wait for a broker.
  [[nodiscard]] EventStore events(std::string_view topic);

  /// Closes every producer and consumer, says goodbye and stops the threads; returns by the deadline, whatever happens.
  /// Inside a callback it starts closing and returns at once (CloseReport::finished is false).
  Result<CloseReport> close(Milliseconds deadline = 10s);

  explicit Client(std::shared_ptr<detail::ClientCore> core) : core_{std::move(core)} {}

 private:
  std::shared_ptr<detail::ClientCore> core_{};
};

}  // namespace v1
}  // namespace tailrace
