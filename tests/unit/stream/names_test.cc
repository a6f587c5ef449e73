#include "stream/names.h"

#include <gtest/gtest.h>

#include <string>

namespace tailrace::broker::stream {
namespace {

TEST(StreamNames, AreUtf8WithoutControlCharacters) {
  for (std::string good : {"a", "cart-7", "user/42", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x90\x8e", "with space", "\xef\xbf\xbd"}) EXPECT_TRUE(valid_name(good)) << good;
  EXPECT_TRUE(valid_name(std::string(255, 'x')));
}

TEST(StreamNames, RefuseEverythingElse) {
  const std::string bad[] = {"", std::string(256, 'x'), "a\nb", std::string("a\0b", 3), "\x7f", "\xc2\x85" /* C1 */, "\x80", "\xc0\xaf" /* overlong */, "\xe0\x80\xaf",
                             "\xf0\x80\x80\xaf", "\xed\xa0\x80" /* surrogate */, "\xf4\x90\x80\x80" /* above U+10FFFF */, "\xf8\x88\x80\x80\x80", "a\xc3" /* cut */, "\xe2\x82", "\xff"};
  for (const std::string& name : bad) EXPECT_FALSE(valid_name(name));
}

}  // namespace
}  // namespace tailrace::broker::stream
