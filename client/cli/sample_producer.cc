#include "sample_producer.h"

#include <fmt/format.h>

#include <condition_variable>
#include <ctime>
#include <mutex>

#include "bench/load/orders.h"
#include "tailrace/client.h"
#include "terminal.h"

namespace tailrace::cli {
namespace {

constexpr std::chrono::milliseconds kPause{300};

void publish(std::stop_token stop, const std::string& server) {
  auto trouble = [](const Error& error) { note(fmt::format("warn the sample producer stopped: {}", error.message)); };
  ClientOptions options;
  options.servers = {server};
  options.client_id = "tailrace-dev-sample";
  auto client = Client::open(std::move(options));
  if (!client) return trouble(client.error());
  auto created = client->admin().create_topic("orders").get();
  if (!created && created.error().code != Errc::topic_exists) return trouble(created.error());
  auto producer = client->producer();
  if (!producer) return trouble(producer.error());
  // Another start continues with other orders, or every run would repeat the first one's.
  load::OrderEvents events{static_cast<std::uint64_t>(std::time(nullptr))};
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock{mutex};
  while (!stop.stop_requested()) {
    const auto event = events.next();
    auto sent = producer->send(RecordView{"orders", event.key, event.line}).get_for(std::chrono::seconds{5});
    if (stop.stop_requested()) break;
    if (sent && !*sent) return trouble(sent->error());
    wake.wait_for(lock, stop, kPause, [] { return false; });
  }
  (void)client->close(std::chrono::milliseconds{200});
}

}  // namespace

void SampleProducer::start(const std::string& server) {
  thread_ = std::jthread{[server](std::stop_token stop) { publish(stop, server); }};
}

void SampleProducer::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

}  // namespace tailrace::cli
