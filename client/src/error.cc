#include "tailrace/error.h"

namespace tailrace::inline v1 {

Error make_error(Errc code, std::string message, std::map<std::string, std::string> at) {
  const ErrcInfo& info = describe(code);
  if (message.empty()) message = info.sentence;
  return {.code = code, .retriable = info.retriable, .maybe_applied = info.maybe_applied, .message = std::move(message),
          .hint = std::string{info.hint}, .at = std::move(at)};
}

std::string Error::to_string() const {
  const ErrcInfo& info = describe(code);
  std::string text = "error E" + std::to_string(static_cast<int>(code)) + ": ";
  std::string_view sentence = info.sentence;
  if (sentence.ends_with('.')) sentence.remove_suffix(1);
  // The broker's messages begin with the sentence, ours are details.
  if (!message.starts_with(sentence)) text.append(sentence).append(": ");
  text += message;
  if (!text.ends_with('.')) text += '.';
  if (!hint.empty()) text.append(" ").append(hint);
  return text;
}

}  // namespace tailrace::inline v1
