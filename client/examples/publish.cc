// Publishes orders and waits for their receipts: publish SERVER TOPIC COUNT
#include <tailrace/tailrace.h>

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  using namespace tailrace;
  if (argc != 4) {
    std::cerr << "usage: publish SERVER TOPIC COUNT\n";
    return 2;
  }
  ClientOptions options{.servers = {argv[1]}, .client_id = "example-publish"};
  auto client = Client::open(options);
  if (!client) return std::cerr << client.error().to_string() << '\n', 1;
  auto producer = client->producer();
  if (!producer) return std::cerr << producer.error().to_string() << '\n', 1;

  // send() returns at once; the receipts come later. Records of one customer share a key, and so keep their order.
  const char* customers[] = {"alice", "bob", "carol"};
  int count = std::atoi(argv[3]);
  std::vector<Task<Receipt>> receipts;
  for (int i = 0; i < count; ++i) {
    Record order{.topic = argv[2], .key = customers[i % 3], .value = "{\"order\":" + std::to_string(i) + ",\"cents\":" + std::to_string(100 + i) + "}"};
    order.headers.push_back({"source", "example"});
    receipts.push_back(producer->send(order));
  }
  int stored = 0;
  for (auto& receipt : receipts) {
    if (auto result = receipt.get()) {
      ++stored;
    } else {
      std::cerr << result.error().to_string() << '\n';
    }
  }
  std::cout << "stored " << stored << " of " << count << " orders\n";
  auto report = client->close(10s);  // says what was left; here nothing is, every receipt is in
  return stored == count && report && report->undelivered == 0 ? 0 : 1;
}
