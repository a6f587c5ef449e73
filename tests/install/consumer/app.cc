// Publishes and reads back through every way to finish a handle: app SERVER
#include <tailrace/tailrace.h>

#include <coroutine>
#include <iostream>

namespace {

struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

Detached send_in_coroutine(tailrace::Producer producer, std::promise<bool>& done) {
  tailrace::Record record{.topic = "orders", .key = "c", .value = "coroutine", .headers = {{"h", "1"}}};  // named: see record.h
  auto receipt = co_await producer.send(record);
  done.set_value(receipt.has_value());
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tailrace;
  if (argc != 2) return 2;
  auto client = Client::open({.servers = {argv[1]}});
  if (!client) return 3;
  auto producer = client->producer({.compression = Compression::zstd});
  if (!producer) return 4;
  if (!producer->send({.topic = "orders", .key = "a", .value = "get"}).get()) return 5;
  if (!producer->send({.topic = "orders", .key = "b", .value = "future"}).to_future().get()) return 6;
  std::promise<bool> in_coroutine, in_callback;
  send_in_coroutine(*producer, in_coroutine);
  if (!in_coroutine.get_future().get()) return 7;
  producer->send({.topic = "orders", .key = "d", .value = "callback"}).then([&](Result<Receipt> r) { in_callback.set_value(r.has_value()); });
  if (!in_callback.get_future().get()) return 8;
  auto consumer = client->consumer("orders", {.until = From::latest()});
  if (!consumer) return 9;
  std::size_t records = 0, headers = 0;
  auto done = consumer->run([&](const Message& message) -> Result<void> {
    ++records;
    headers += message.headers.size();
    return {};
  });
  if (!done) return 10;
  auto missing = client->consumer("absent");
  if (missing || missing.error().code != Errc::no_such_topic || describe(missing.error().code).exit_code != 3) return 11;
  std::cout << "read " << records << " records, " << headers << " headers\n";
  return records >= 4 && headers >= 1 && client->close(5s)->finished ? 0 : 12;
}
