#pragma once
/// Makes the kernel refuse io_uring to this process, as a container's seccomp profile does. It cannot be taken back: call it
/// in a forked child.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cstddef>

namespace tailrace::broker::testing_support {

/// io_uring_setup, _enter and _register answer `number` (EPERM, ENOSYS) from now on. False: the filter was not accepted.
inline bool refuse_io_uring(int number) {
  auto answer = static_cast<unsigned>(SECCOMP_RET_ERRNO | (number & SECCOMP_RET_DATA));
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SYS_io_uring_setup, 0, 2),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, SYS_io_uring_register, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, answer),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  static_assert(SYS_io_uring_setup == 425 && SYS_io_uring_register == 427, "the three calls are neighbours");
  sock_fprog program{sizeof filter / sizeof filter[0], filter};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace tailrace::broker::testing_support
