// Reads a range of one partition again: replay SERVER TOPIC PARTITION FROM UNTIL (offsets; UNTIL is not read)
#include <tailrace/tailrace.h>

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  using namespace tailrace;
  if (argc != 6) {
    std::cerr << "usage: replay SERVER TOPIC PARTITION FROM UNTIL\n";
    return 2;
  }
  auto client = Client::open({.servers = {argv[1]}, .client_id = "example-replay"});
  if (!client) return std::cerr << client.error().to_string() << '\n', 1;

  ConsumerOptions options;
  options.partitions = {std::atoi(argv[3])};
  options.start = From::offset(std::atoll(argv[4]));
  options.until = From::offset(std::atoll(argv[5]));
  options.out_of_range = OutOfRange::error;  // a replay that silently began elsewhere would be wrong
  auto consumer = client->consumer(argv[2], options);
  if (!consumer) return std::cerr << consumer.error().to_string() << '\n', 1;

  int count = 0;
  auto done = consumer->run([&](const Message& message) -> Result<void> {
    std::cout << message.offset << ' ' << message.value_text() << '\n';
    ++count;
    return {};
  });
  if (!done) return std::cerr << done.error().to_string() << '\n', 1;

  // The same range once more with the same consumer, as one does after mending a handler.
  int again = 0;
  auto moved = consumer->replay(From::offset(std::atoll(argv[4])), From::offset(std::atoll(argv[5])));
  if (!moved) return std::cerr << moved.error().to_string() << '\n', 1;
  auto redone = consumer->run([&](const Message&) -> Result<void> { return ++again, Result<void>{}; });
  if (!redone) return std::cerr << redone.error().to_string() << '\n', 1;
  std::cout << "replayed " << count << " records, twice: " << (again == count ? "the same" : "DIFFERENT") << '\n';
  return again == count ? 0 : 1;
}
