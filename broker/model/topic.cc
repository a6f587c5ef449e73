#include "model/topic.h"

#include <fmt/format.h>

#include <algorithm>

namespace tailrace::broker {

std::string TopicId::to_string() const {
  std::string text;
  for (auto b : bytes) text += fmt::format("{:02x}", b);
  return text;
}

namespace {

Result<void> check_name(std::string_view name, std::size_t size_max) {
  if (name.empty()) return fail(Errc::invalid_topic_name, "a topic name has at least one character");
  if (name.size() > size_max) {
    return fail(Errc::invalid_topic_name,
                fmt::format("a topic name has at most {} characters, this one has {}", size_max, name.size()));
  }
  if (name == "." || name == "..") return fail(Errc::invalid_topic_name, "\".\" and \"..\" are not topic names");
  auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  auto bad = std::ranges::find_if_not(name, allowed);
  if (bad != name.end()) {
    return fail(Errc::invalid_topic_name, fmt::format("only letters, digits, '.', '_' and '-' are allowed; byte 0x{:02x} at {} is not",
                                                      static_cast<unsigned char>(*bad), bad - name.begin()));
  }
  return {};
}

}  // namespace

Result<void> check_topic_name(std::string_view name) {
  TAILRACE_TRY_VOID(check_name(name, limits::kTopicNameMax));
  if (is_internal_topic(name)) return fail(Errc::invalid_topic_name, "names that begin with \"__\" belong to the broker");
  return {};
}

bool is_internal_topic(std::string_view name) { return name.starts_with("__"); }

Result<void> check_internal_topic_name(std::string_view name) { return check_name(name, limits::kInternalTopicNameMax); }

std::string topic_clash_key(std::string_view name) {
  std::string key{name};
  std::ranges::replace(key, '.', '_');
  return key;
}

}  // namespace tailrace::broker
