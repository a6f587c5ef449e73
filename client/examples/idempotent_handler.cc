// Handles each record's effect exactly once, whenever the process dies: idempotent_handler SERVER TOPIC STATE_FILE [CRASH_AFTER]
//
// The trick is to store the position together with the result, in one atomic step, and to begin there next time. Here the
// result is a sum of cents, and the step is a rename; with a database it is one transaction.
#include <tailrace/tailrace.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>

namespace {

struct State {
  long long cents = 0;
  long long records = 0;
  std::map<std::int32_t, std::int64_t> next{};  // by partition: the offset that is not handled yet
};

State load(const std::string& path) {
  State state;
  std::ifstream file{path};
  if (!(file >> state.cents >> state.records)) return {};
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  while (file >> partition >> offset) state.next[partition] = offset;
  return state;
}

bool store(const std::string& path, const State& state) {
  std::string fresh = path + ".new";
  {
    std::ofstream file{fresh, std::ios::trunc};
    file << state.cents << ' ' << state.records << '\n';
    for (auto [partition, offset] : state.next) file << partition << ' ' << offset << '\n';
    if (!file.flush()) return false;
  }
  return std::rename(fresh.c_str(), path.c_str()) == 0;  // result and position appear together or not at all
}

long long cents_of(std::string_view value) {
  constexpr std::string_view kField = "\"cents\":";
  auto at = value.find(kField);
  return at == std::string_view::npos ? 0 : std::atoll(std::string{value.substr(at + kField.size())}.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tailrace;
  if (argc < 4) {
    std::cerr << "usage: idempotent_handler SERVER TOPIC STATE_FILE [CRASH_AFTER]\n";
    return 2;
  }
  std::string path = argv[3];
  long long crash_after = argc > 4 ? std::atoll(argv[4]) : -1;
  State state = load(path);
  auto client = Client::open({.servers = {argv[1]}, .client_id = "example-idempotent-handler"});
  if (!client) return std::cerr << client.error().to_string() << '\n', 1;

  ConsumerOptions options;
  options.start = From::earliest();
  options.until = From::latest();
  for (auto [partition, offset] : state.next) options.starts.push_back({.partition = partition, .start = From::offset(offset), .until = {}});
  auto consumer = client->consumer(argv[2], options);
  if (!consumer) return std::cerr << consumer.error().to_string() << '\n', 1;

  long long handled = 0;
  auto done = consumer->run([&](const Message& message) -> Result<void> {
    std::int64_t& next = state.next[message.partition];
    if (message.offset < next) return {};  // seen before; with positions stored this way it does not happen
    state.cents += cents_of(message.value_text());
    ++state.records;
    next = message.offset + 1;
    if (handled == crash_after) std::_Exit(9);  // as a power cut would: before this record's result is stored
    if (++handled % 10 == 0 && !store(path, state)) return std::unexpected(make_error(Errc::io_error, path));
    return {};
  });
  if (!done) return std::cerr << done.error().to_string() << '\n', 1;
  if (!store(path, state)) return std::cerr << "cannot write " << path << '\n', 1;
  std::cout << "records " << state.records << " cents " << state.cents << '\n';
  return 0;
}
