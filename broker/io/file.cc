#include "io/file.h"

#include <cerrno>
#include <cstring>

namespace tailrace::broker::io {
Error error_of(std::int64_t result, std::string what) {
  int number = static_cast<int>(-result);
  Errc code = Errc::io_error;
  if (number == ENOSPC || number == EDQUOT) code = Errc::storage_full;
  if (number == EMFILE || number == ENFILE) code = Errc::descriptors_exhausted;
  if (number == ENOENT) code = Errc::not_found;
  if (number == EEXIST) code = Errc::exists;
  if (number == EISDIR) code = Errc::corrupt;  // a directory where a file belongs: no device's fault, and no retry helps
  char text[128] = {};
  return {code, what + ": " + ::strerror_r(number, text, sizeof text)};
}

Task<Result<std::size_t>> read_up_to(File& file, MutableBytes into, std::uint64_t position) {
  std::size_t done = 0;
  while (done < into.size()) {
    std::int64_t n = co_await FileOp{[&](Operation& op) { file.read(op, into.subspan(done), position + done); }};
    if (n == -EINTR || n == -EAGAIN) continue;
    if (n == -EINVAL && done % kDirectAlignment != 0) {
      // A short read ended inside a block, and a direct file goes on at a block's front only: the block is read once more.
      std::size_t front = done / kDirectAlignment * kDirectAlignment;
      n = co_await FileOp{[&](Operation& op) { file.read(op, into.subspan(front), position + front); }};
      if (n == -EINTR || n == -EAGAIN) continue;
      if (n >= 0 && front + static_cast<std::size_t>(n) <= done) break;  // it was the end
      if (n > 0) n -= static_cast<std::int64_t>(done - front);
    }
    if (n < 0) co_return std::unexpected(error_of(n, "read"));
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  co_return done;
}

Task<Result<void>> read_exactly(File& file, MutableBytes into, std::uint64_t position) {
  TAILRACE_CO_TRY(std::size_t done, co_await read_up_to(file, into, position));
  if (done < into.size()) co_return fail(Errc::unexpected_end, "the file ends before the bytes asked for");
  co_return Result<void>{};
}

Task<Result<void>> write_all(File& file, Bytes from, std::uint64_t position, Durable durable) {
  std::size_t done = 0;
  while (done < from.size()) {
    std::int64_t n = co_await FileOp{[&](Operation& op) { file.write(op, from.subspan(done), position + done, durable); }};
    if (n == -EINTR || n == -EAGAIN) continue;
    if (n < 0) co_return std::unexpected(error_of(n, "write"));
    if (n == 0) co_return fail(Errc::io_error, "write: the device took no byte");
    done += static_cast<std::size_t>(n);
  }
  co_return Result<void>{};
}

Task<Result<void>> sync(File& file) {
  std::int64_t n = co_await FileOp{[&](Operation& op) { file.sync(op); }};
  if (n < 0) co_return std::unexpected(error_of(n, "sync"));
  co_return Result<void>{};
}

Task<Result<void>> allocate(File& file, std::uint64_t position, std::uint64_t length) {
  std::int64_t n = co_await FileOp{[&](Operation& op) { file.allocate(op, position, length); }};
  if (n < 0) co_return std::unexpected(error_of(n, "allocate"));
  co_return Result<void>{};
}

Task<Result<void>> truncate(File& file, std::uint64_t size) {
  std::int64_t n = co_await FileOp{[&](Operation& op) { file.truncate(op, size); }};
  if (n < 0) co_return std::unexpected(error_of(n, "truncate"));
  co_return Result<void>{};
}

}  // namespace tailrace::broker::io
