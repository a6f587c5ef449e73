// Runs a command under the allow list of a container seccomp profile, without a container:
//   seccomp_run PROFILE.json COMMAND [ARGUMENTS...]      seccomp_run --probe-io-uring
// Rules on arguments are judged on the system call alone, except that a call listed for SCMP_ACT_ERRNO fails as it says;
// clone is let through, as its rule forbids only namespaces, which unshare shows.
#include <asm/unistd.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace {

/// Names to numbers, from the kernel's own header.
std::map<std::string, unsigned> call_numbers() {
  std::map<std::string, unsigned> numbers;
  for (const char* path : {"/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h"}) {
    std::ifstream header{path};
    std::string word, name;
    unsigned number = 0;
    while (header >> word) {
      if (word == "#define" && header >> name && name.starts_with("__NR_") && header >> number) numbers.emplace(name.substr(5), number);
      header.clear();
    }
    if (!numbers.empty()) break;
  }
  return numbers;
}

int probe_io_uring() {
  char params[120] = {};
  const long fd = ::syscall(__NR_io_uring_setup, 4, params);
  if (fd >= 0) ::close(static_cast<int>(fd));
  return fd >= 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view{argv[1]} == "--probe-io-uring") return probe_io_uring();
  if (argc < 3) {
    std::fprintf(stderr, "usage: seccomp_run PROFILE.json COMMAND [ARGUMENTS...]\n");
    return 2;
  }
  std::ifstream file{argv[1]};
  const auto profile = nlohmann::json::parse(file, nullptr, false);
  const auto numbers = call_numbers();
  if (profile.is_discarded() || numbers.empty()) {
    std::fprintf(stderr, "seccomp_run: cannot read the profile or the kernel's header\n");
    return 2;
  }
  std::vector<sock_filter> program = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const auto& rule : profile["syscalls"]) {
    const bool allow = rule["action"] == "SCMP_ACT_ALLOW";
    const unsigned verdict = allow ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | rule.value("errnoRet", 1u);
    for (const auto& name : rule["names"]) {
      auto number = numbers.find(name.get<std::string>());
      if (number == numbers.end()) {
        std::fprintf(stderr, "seccomp_run: no system call is named %s\n", name.get<std::string>().c_str());
        return 2;
      }
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number->second, 0, 1));
      program.push_back(BPF_STMT(BPF_RET | BPF_K, verdict));
    }
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | profile.value("defaultErrnoRet", 1u)));
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    std::fprintf(stderr, "seccomp_run: %s\n", std::strerror(errno));
    return 2;
  }
  ::execvp(argv[2], argv + 2);
  std::fprintf(stderr, "seccomp_run: %s: %s\n", argv[2], std::strerror(errno));
  return 127;
}
