#include "client/cli/lines.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

namespace tailrace::cli {
namespace {

struct Pipe {
  Pipe() { if (::pipe2(ends, O_CLOEXEC) != 0) std::abort(); }
  ~Pipe() {
    close_write();
    ::close(ends[0]);
  }
  void write(std::string_view bytes) {
    ASSERT_EQ(::write(ends[1], bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  void close_write() {
    if (ends[1] >= 0) ::close(ends[1]);
    ends[1] = -1;
  }
  int ends[2];
};

std::vector<std::string> all_lines(LineReader& reader) {
  std::vector<std::string> lines;
  for (;;) {
    auto line = reader.next();
    if (!line) {
      EXPECT_EQ(line.error(), LineEnd::end);
      return lines;
    }
    lines.emplace_back(*line);
  }
}

TEST(LineReader, LastLineMayLackItsNewlineAndBytesStay) {
  Pipe pipe;
  pipe.write(std::string_view("a\n\nb\r\n\0c\xff\nlast", 14));
  pipe.close_write();
  LineReader reader{pipe.ends[0], -1, 100};
  EXPECT_EQ(all_lines(reader), (std::vector<std::string>{"a", "", "b\r", std::string("\0c\xff", 3), "last"}));
}

TEST(LineReader, AnEmptyInputHasNoRecords) {
  Pipe pipe;
  pipe.close_write();
  LineReader reader{pipe.ends[0], -1, 100};
  EXPECT_TRUE(all_lines(reader).empty());
}

// Wherever the kernel cuts the pieces, the lines are the same.
RC_GTEST_PROP(LineReader, PiecesDoNotMatter, ()) {
  auto lines = *rc::gen::container<std::vector<std::string>>(rc::gen::container<std::string>(rc::gen::elementOf(std::string("ab\r"))));
  std::string text;
  for (const auto& line : lines) text += line + "\n";
  Pipe pipe;
  std::thread writer{[&] {
    for (std::size_t at = 0; at < text.size();) {
      const auto piece = std::min<std::size_t>(text.size() - at, 1 + at % 7);
      pipe.write(std::string_view{text}.substr(at, piece));
      at += piece;
    }
    pipe.close_write();
  }};
  LineReader reader{pipe.ends[0], -1, 1000};
  auto got = all_lines(reader);
  writer.join();
  RC_ASSERT(got == lines);
}

// `pub` at the end of a pipe must have bounded memory whatever comes through it.
TEST(LineReader, ALineAboveTheBoundStopsIt) {
  Pipe pipe;
  pipe.write("short\n" + std::string(200, 'x'));
  LineReader reader{pipe.ends[0], -1, 100};
  EXPECT_EQ(reader.next().value(), "short");
  EXPECT_EQ(reader.next(10).error(), LineEnd::too_long);
}

// Ctrl-C ends the wait for a pipe that says nothing; an idle wait lets receipts be flushed meanwhile.
TEST(LineReader, WaitingEndsByTheClockOrByTheWake) {
  Pipe pipe;
  const int wake = ::eventfd(0, EFD_CLOEXEC);
  LineReader reader{pipe.ends[0], wake, 100};
  EXPECT_EQ(reader.next(5).error(), LineEnd::idle);
  const std::uint64_t one = 1;
  ASSERT_EQ(::write(wake, &one, sizeof one), static_cast<ssize_t>(sizeof one));
  EXPECT_EQ(reader.next(-1).error(), LineEnd::interrupted);
  ::close(wake);
}

TEST(LineReader, TheRestIsOneRecord) {
  Pipe pipe;
  pipe.write("a\nb\n");
  pipe.close_write();
  LineReader reader{pipe.ends[0], -1, 100};
  EXPECT_EQ(reader.rest().value(), "a\nb\n");
}

}  // namespace
}  // namespace tailrace::cli
