#include "io/names.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <utility>

#include "base/log.h"

namespace tailrace::broker::io::names {
namespace {

// Records may be anybody's secret: readable by the owner's group at most.
constexpr mode_t kFileMode = 0640, kDirectoryMode = 0750;

std::unexpected<Error> failed(const char* what, const std::string& path) {
  return std::unexpected(error_of(-errno, fmt::format("{} {}", what, path)));
}

/// Retries what a signal interrupted.
template <class Call>
auto uninterrupted(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_{fd} {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int open_directory(const std::string& path) {
  return uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
}

}  // namespace

Result<int> open(const std::string& path, OpenOptions options) {
  int flags = O_CLOEXEC | (options.write ? O_RDWR : O_RDONLY);
  if (options.create) flags |= O_CREAT;
  if (options.exclusive) flags |= O_EXCL;
  if (options.direct) flags |= O_DIRECT;
  int fd = uninterrupted([&] { return ::open(path.c_str(), flags, kFileMode); });
  if (fd < 0 && errno == EINVAL && options.direct) {
    // open(2): EINVAL is how a file system says that it has no O_DIRECT. It may have created the file before saying so.
    fd = uninterrupted([&] { return ::open(path.c_str(), flags & ~(O_DIRECT | O_EXCL), kFileMode); });
    static std::atomic<bool> said{false};
    if (fd >= 0 && !said.exchange(true)) {
      log_warn("io.no_direct", "{}: this file system has no direct I/O; using its cache, which is slower and doubles memory", path);
    }
  }
  if (fd < 0) return failed("open", path);
  // For reading a directory can be opened like a file.
  struct stat status{};
  if (::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) {
    ::close(fd);
    return std::unexpected(error_of(-EISDIR, fmt::format("open {}", path)));
  }
  return fd;
}

Result<void> remove(const std::string& path) {
  if (::unlink(path.c_str()) != 0) return failed("remove", path);
  return {};
}
Result<void> remove_directory(const std::string& path) {
  if (::rmdir(path.c_str()) != 0) return failed("remove directory", path);
  return {};
}
Result<void> rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return failed("rename", fmt::format("{} to {}", from, to));
  return {};
}
Result<void> make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), kDirectoryMode) == 0) return {};
  int number = errno;
  struct stat status{};
  if (number == EEXIST && ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return {};
  return std::unexpected(error_of(-number, fmt::format("make directory {}", path)));
}

Result<void> sync_directory(const std::string& path) {
  Descriptor directory{open_directory(path)};
  if (directory.get() < 0) return failed("open directory", path);
  if (::fsync(directory.get()) != 0) return failed("sync directory", path);
  return {};
}

Result<std::vector<DirectoryEntry>> list(const std::string& path) {
  int fd = open_directory(path);
  if (fd < 0) return failed("list", path);
  std::unique_ptr<DIR, int (*)(DIR*)> directory{::fdopendir(fd), ::closedir};
  if (!directory) {
    ::close(fd);
    return failed("list", path);
  }
  std::vector<DirectoryEntry> entries;
  for (;;) {
    errno = 0;
    dirent* entry = ::readdir(directory.get());
    if (!entry) break;
    std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat status{};
    if (::fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;  // removed meanwhile
      return failed("list", path + "/" + name);
    }
    entries.push_back({std::move(name), S_ISDIR(status.st_mode), static_cast<std::uint64_t>(status.st_size)});
  }
  if (errno != 0) return failed("list", path);
  std::ranges::sort(entries, {}, &DirectoryEntry::name);
  return entries;
}

Result<Space> space(const std::string& path) {
  struct statvfs status{};
  if (::statvfs(path.c_str(), &status) != 0) return failed("space of", path);
  return Space{.total_bytes = status.f_blocks * status.f_frsize, .free_bytes = status.f_bavail * status.f_frsize};
}

Result<int> lock(const std::string& path) {
  Descriptor directory{open_directory(path)};
  if (directory.get() < 0) return failed("lock", path);
  if (uninterrupted([&] { return ::flock(directory.get(), LOCK_EX | LOCK_NB); }) != 0) {
    if (errno == EWOULDBLOCK) return fail(Errc::data_directory_locked, path);
    return failed("lock", path);
  }
  return directory.release();
}

}  // namespace tailrace::broker::io::names
