#pragma once
/// A real broker as a child process: started, killed and waited for by tests that lie outside it.
#include <chrono>
#include <map>
#include <string>
#include <sys/types.h>
#include <vector>

namespace tailrace::process {

struct BrokerSettings {
  std::string binary{};
  std::string data{};
  std::string log_file{};               // the broker's stderr is appended here
  std::vector<std::string> arguments{}; // more of them, e.g. --set wal.files=4
  std::map<std::string, std::string> environment{};
};

/// Owns    the child; the destructor kills it.
/// Thread  one.
class BrokerProcess {
 public:
  explicit BrokerProcess(BrokerSettings settings) : settings_{std::move(settings)} {}
  BrokerProcess(const BrokerProcess&) = delete;
  BrokerProcess& operator=(const BrokerProcess&) = delete;
  ~BrokerProcess() { kill(); }

  /// Starts it, on the port of the first start where there was one. False: it could not be started at all.
  bool launch();
  /// Waits for the `ready` line. False: it ended or said nothing in time.
  bool wait_ready(std::chrono::milliseconds wait = std::chrono::seconds{20});
  bool start() { return launch() && wait_ready(); }
  void kill();                                    // SIGKILL, and reaps it
  int stop(std::chrono::milliseconds wait = std::chrono::seconds{20});  // SIGTERM; the exit code, or -1 if it had to be killed
  [[nodiscard]] const std::string& address() const { return native_; }  // host:port of the native listener
  [[nodiscard]] const std::string& http() const { return http_; }
  [[nodiscard]] pid_t pid() const { return child_; }

 private:
  BrokerSettings settings_;
  pid_t child_ = -1;
  int out_ = -1;
  std::string native_, http_;
};

}  // namespace tailrace::process
