// Prints a topic: tail SERVER TOPIC [follow]. Without `follow` it stops at the end as it is now.
#include <tailrace/tailrace.h>

#include <csignal>
#include <iostream>

namespace {
volatile std::sig_atomic_t interrupted = 0;
}

int main(int argc, char** argv) {
  using namespace tailrace;
  if (argc < 3) {
    std::cerr << "usage: tail SERVER TOPIC [follow]\n";
    return 2;
  }
  bool follow = argc > 3 && std::string_view{argv[3]} == "follow";
  std::signal(SIGINT, [](int) { interrupted = 1; });
  auto client = Client::open({.servers = {argv[1]}, .client_id = "example-tail"});
  if (!client) return std::cerr << client.error().to_string() << '\n', 1;

  ConsumerOptions options;
  options.start = From::earliest();
  if (!follow) options.until = From::latest();
  auto consumer = client->consumer(argv[2], options);
  if (!consumer) return std::cerr << consumer.error().to_string() << '\n', 1;

  // Loss of the broker is not an error: next() waits while the client reconnects, and goes on at the next offset.
  while (!interrupted) {
    auto message = consumer->next(500ms);
    if (!message) return std::cerr << message.error().to_string() << '\n', 1;
    if (*message) {
      const Message& m = **message;
      std::cout << m.topic << '[' << m.partition << "]@" << m.offset << ' ' << (m.key ? m.key_text() : "-") << ' ' << m.value_text() << '\n';
    } else if (consumer->finished()) {
      break;
    }
  }
  return 0;
}
