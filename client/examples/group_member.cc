// Works through a topic together with whoever else runs this: group_member SERVER TOPIC GROUP [COUNT]. Stops after COUNT records, or with Ctrl-C.
#include <tailrace/tailrace.h>

#include <csignal>
#include <iostream>
#include <string>
#include <thread>

namespace {
std::stop_source stopping;
}

int main(int argc, char** argv) {
  using namespace tailrace;
  if (argc < 4) {
    std::cerr << "usage: group_member SERVER TOPIC GROUP [COUNT]\n";
    return 2;
  }
  long left = argc > 4 ? std::stol(argv[4]) : -1;
  // Before the client has threads, so that none of them is interrupted.
  sigset_t interrupt;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupt, nullptr);
  std::thread{[interrupt] {
    int signal = 0;
    sigwait(&interrupt, &signal);
    stopping.request_stop();
  }}.detach();
  auto client = Client::open({.servers = {argv[1]}, .client_id = "example-group-member"});
  if (!client) return std::cerr << client.error().to_string() << '\n', 1;

  GroupOptions options;
  options.on_assigned = [](std::span<const Position> partitions) { std::cerr << "reads " << partitions.size() << " more partitions\n"; };
  options.on_revoked = [](std::span<const Position> partitions) { std::cerr << partitions.size() << " partitions go to another member\n"; };
  auto consumer = client->group_consumer(argv[3], {argv[2]}, options);
  if (!consumer) return std::cerr << consumer.error().to_string() << '\n', 1;

  // What the handler has returned from is stored once a second, and at the end. After a crash the records since then come again: a handler
  // must stand that (idempotent_handler.cc).
  auto ended = consumer->run(
      [&](const Message& message) -> Result<void> {
        std::cout << message.partition << '@' << message.offset << ' ' << message.value_text() << '\n';
        if (left > 0 && --left == 0) stopping.request_stop();
        return {};
      },
      stopping.get_token());
  if (!ended) return std::cerr << ended.error().to_string() << '\n', 1;
  auto closed = consumer->close();
  return closed ? 0 : 1;
}
