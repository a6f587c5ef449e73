#include "tests/sim/planted_child.h"

#include <fmt/core.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>

namespace tailrace::broker::sim {

std::optional<std::string> in_child(PlantedBug bug, unsigned seconds_max, const std::function<bool(const Say&)>& body) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) return std::nullopt;
  std::fflush(stdout);
  pid_t child = ::fork();
  if (child < 0) return std::nullopt;
  if (child == 0) {
    ::close(ends[0]);
    ::dup2(ends[1], 2);
    ::alarm(seconds_max);
    plant(bug);
    auto say = [&](const std::string& text) {
      if (::write(ends[1], text.data(), text.size()) < 0) ::_exit(2);
    };
    ::_exit(body(say) ? 1 : 0);
  }
  ::close(ends[1]);
  std::string text;
  std::array<char, 4'096> part{};
  for (ssize_t n = 0; (n = ::read(ends[0], part.data(), part.size())) > 0;) text.append(part.data(), static_cast<std::size_t>(n));
  ::close(ends[0]);
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return std::nullopt;
  std::size_t at = text.rfind("\n@");
  std::string last = at == std::string::npos ? "" : text.substr(at + 2);
  std::ranges::replace(last, '\n', ' ');
  if (WIFEXITED(status) && WEXITSTATUS(status) == 1) return last;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) return fmt::format("{} (a check of the core)", last.substr(0, last.find(' ')));
  return std::nullopt;
}

}  // namespace tailrace::broker::sim
