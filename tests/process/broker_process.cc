#include "tests/process/broker_process.h"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace tailrace::process {
namespace {

std::string field(const std::string& line, const std::string& name) {
  auto at = line.find(name + "=");
  if (at == std::string::npos) return {};
  at += name.size() + 1;
  return line.substr(at, line.find_first_of(" \n", at) - at);
}

}  // namespace

bool BrokerProcess::launch() {
  int pipe_ends[2];
  if (::pipe2(pipe_ends, O_CLOEXEC) != 0) return false;
  std::vector<std::string> words{settings_.binary, "server", "--data", settings_.data, "--listen", native_.empty() ? "127.0.0.1:0" : native_,
                                 "--http-listen", "127.0.0.1:0"};
  words.insert(words.end(), settings_.arguments.begin(), settings_.arguments.end());
  std::vector<char*> argv;
  for (auto& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  child_ = ::fork();
  if (child_ == 0) {
    ::dup2(pipe_ends[1], STDOUT_FILENO);
    int log = ::open(settings_.log_file.empty() ? "/dev/null" : settings_.log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(log, STDERR_FILENO);
    for (auto& [name, value] : settings_.environment) ::setenv(name.c_str(), value.c_str(), 1);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(pipe_ends[1]);
  out_ = pipe_ends[0];
  return child_ > 0;
}

bool BrokerProcess::wait_ready(std::chrono::milliseconds wait) {
  auto end = std::chrono::steady_clock::now() + wait;
  std::string text;
  while (std::chrono::steady_clock::now() < end) {
    pollfd p{out_, POLLIN, 0};
    if (::poll(&p, 1, 50) <= 0) continue;
    char buffer[512];
    ssize_t n = ::read(out_, buffer, sizeof buffer);
    if (n <= 0) return false;
    text.append(buffer, static_cast<std::size_t>(n));
    auto at = text.rfind("ready ", 0) == 0 ? 0 : text.find("\nready ");
    if (at == std::string::npos || text.find('\n', at + 1) == std::string::npos) continue;
    native_ = field(text.substr(at), "native");
    http_ = field(text.substr(at), "http");
    return !native_.empty();
  }
  return false;
}

void BrokerProcess::kill() {
  if (child_ > 0) {
    ::kill(child_, SIGKILL);
    while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
    }
    child_ = -1;
  }
  if (out_ >= 0) ::close(out_);
  out_ = -1;
}

int BrokerProcess::stop(std::chrono::milliseconds wait) {
  if (child_ <= 0) return -1;
  ::kill(child_, SIGTERM);
  auto end = std::chrono::steady_clock::now() + wait;
  int status = 0;
  while (std::chrono::steady_clock::now() < end) {
    if (::waitpid(child_, &status, WNOHANG) == child_) {
      child_ = -1;
      kill();
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
  }
  kill();
  return -1;
}

}  // namespace tailrace::process
