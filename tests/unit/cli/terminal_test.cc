#include "client/cli/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

namespace tailrace::cli {
namespace {

// no-color.org and the habits of other tools: the flag wins, then NO_COLOR, then FORCE_COLOR, then the terminal.
TEST(Terminal, ColourIsDecidedInOrder) {
  EXPECT_TRUE(use_colour(Colour::always, "1", nullptr, false));
  EXPECT_FALSE(use_colour(Colour::never, nullptr, "1", true));
  EXPECT_FALSE(use_colour(Colour::automatic, "1", "1", true));
  EXPECT_TRUE(use_colour(Colour::automatic, "", "1", false));
  EXPECT_FALSE(use_colour(Colour::automatic, nullptr, "0", true));
  EXPECT_TRUE(use_colour(Colour::automatic, nullptr, nullptr, true));
  EXPECT_FALSE(use_colour(Colour::automatic, nullptr, nullptr, false));
}

// `tailrace tail t | head -1` ends quietly: a reader that left is not an error, a full disk is.
TEST(Terminal, AClosedPipeIsQuietAndAFullDiskIsNot) {
  ::signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  ::close(ends[0]);
  Stdout gone{ends[1]};
  gone.write("hello\n");
  gone.flush();
  EXPECT_TRUE(gone.closed());
  EXPECT_EQ(gone.error(), 0);
  ::close(ends[1]);

  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  Stdout out{full};
  out.write("hello\n");
  out.flush();
  EXPECT_EQ(out.error(), ENOSPC);
  EXPECT_FALSE(out.closed());
  ::close(full);
}

// Records may hold anything; a terminal must not be moved, cleared or retitled by one.
TEST(Terminal, ControlCharactersNeverReachTheScreen) {
  EXPECT_EQ(printable("a\x1b[2Jb\n"), "a\\x1b[2Jb\\n");
  EXPECT_EQ(printable("\xC3\xA4"), "\xC3\xA4");
  EXPECT_EQ(printable("\xC2\x9B" "31m"), "\\x9b31m");
  EXPECT_EQ(printable("\xff\xC3\xA4"), "\\xff\\xc3\\xa4");
}

TEST(Terminal, TablesAlignByCharacters) {
  Table table{{"NAME", ">BYTES"}};
  table.row({"zürich", "8"});
  table.row({"b", "1024"});
  EXPECT_EQ(table.text(false), "NAME    BYTES\nzürich      8\nb        1024\n");
}

TEST(Terminal, TheBarFitsTheLine) {
  const auto line = Progress::line("publishing", 50, 200, "12,345 records", 2.0, 60);
  EXPECT_LE(line.size(), 59u);
  EXPECT_NE(line.find("25 %"), std::string::npos);
  EXPECT_NE(Progress::line("publishing", 50, 200, "x", 2.0, 200).find("6.0 s left"), std::string::npos);
  EXPECT_EQ(Progress::line("reading", 5, 0, "5 records", 2.0, 80), "reading  5 records");
}

}  // namespace
}  // namespace tailrace::cli
