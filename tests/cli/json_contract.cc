// json_contract [lines]: is what standard input holds - one document, or with "lines" one object a line - what every
// `-o json` and `-o jsonl` promises? An object with a schema "tailrace.NAME.vN", snake_case names at every depth, and no text
// where a number is meant (a size or duration with a unit, a number, true or false), except where the name says _text.
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>

namespace {

int bad = 0;

void complain(const std::string& where, const std::string& what) {
  std::cerr << where << ": " << what << "\n";
  ++bad;
}

// Free text of people and records, and ids, may look like anything.
bool is_free_text(const std::string& name) {
  for (const char* free : {"text", "from_text", "to_text", "default_text", "meaning", "message", "hint", "sentence", "explanation", "type", "checksum", "crc", "kernel", "commit", "digest", "version", "id", "magic"}) {
    if (name == free) return true;
  }
  return name.ends_with("_id") || name.ends_with("_crc");
}

void check(const nlohmann::json& node, const std::string& where, const std::string& name, bool is_record) {
  static const std::regex snake{"[a-z][a-z0-9]*(_[a-z0-9]+)*"}, number{"-?[0-9]+(\\.[0-9]+)?( ?(ns|us|ms|s|m|h|d|w|B|KiB|MiB|GiB|kB|MB|GB))?|true|false"};
  if (node.is_object()) {
    for (const auto& [key, value] : node.items()) {
      if (!std::regex_match(key, snake)) complain(where + "." + key, "is not snake_case");
      check(value, where + "." + key, key, is_record);
    }
  } else if (node.is_array()) {
    for (std::size_t i = 0; i < node.size(); ++i) check(node[i], where + "[" + std::to_string(i) + "]", name, is_record);
  } else if (node.is_string() && !is_record && !is_free_text(name) && std::regex_match(node.get<std::string>(), number)) {
    complain(where, "is the text \"" + node.get<std::string>() + "\" instead of a number");
  }
}

void check_document(const std::string& text, const std::string& where) {
  const auto document = nlohmann::json::parse(text, nullptr, false);
  if (!document.is_object()) return complain(where, "is not one JSON object");
  static const std::regex schema{"tailrace\\.[a-z][a-z0-9]*(_[a-z0-9]+)*\\.v[1-9][0-9]*"};
  const auto name = document.value("schema", std::string{});
  if (!std::regex_match(name, schema)) complain(where, "has no schema");
  check(document, where, "", name.starts_with("tailrace.record."));
}

}  // namespace

int main(int argc, char**) {
  int documents = 0;
  if (argc > 1) {
    for (std::string line; std::getline(std::cin, line); ++documents) check_document(line, "line " + std::to_string(documents + 1));
  } else {
    const std::string all{std::istreambuf_iterator<char>{std::cin}, {}};
    if (!all.empty()) ++documents, check_document(all, "document");
  }
  if (documents == 0) complain("input", "is empty");
  return bad == 0 ? 0 : 1;
}
