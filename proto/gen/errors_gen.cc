// Generates tailrace/errc.h, errc.cc and errors.md from errors.toml: errors_gen errors.toml OUT_HEADER OUT_SOURCE OUT_DOC
#include <fstream>
#include <iostream>
#include <set>
#include <toml++/toml.h>

namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n') out += "\\n";
    else out += c;
  }
  return out + "\"";
}

struct Entry {
  std::string name, sentence, hint, explanation;
  long code = 0, exit = 0;
  bool retriable = false, maybe_applied = false;
};

template <class T>
T field(const toml::table& table, const char* key) {
  auto value = table[key].value_exact<T>();
  if (!value) throw std::runtime_error(std::string{"an [[error]] without a proper "} + key);
  return *value;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 5) throw std::runtime_error("usage: errors_gen errors.toml OUT_HEADER OUT_SOURCE OUT_DOC");
  auto file = toml::parse_file(argv[1]);
  std::vector<Entry> entries;
  std::set<long> codes;
  std::set<std::string> names;
  for (auto& node : *file["error"].as_array()) {
    auto& t = *node.as_table();
    Entry e{field<std::string>(t, "name"), field<std::string>(t, "sentence"), field<std::string>(t, "hint"), t["explanation"].value_or(std::string{}),
            field<std::int64_t>(t, "code"), field<std::int64_t>(t, "exit"), field<bool>(t, "retriable"), field<bool>(t, "maybe_applied")};
    if (!codes.insert(e.code).second || !names.insert(e.name).second) throw std::runtime_error("twice: " + e.name);
    entries.push_back(e);
  }
  std::ofstream header(argv[2]), source(argv[3]), doc(argv[4]);
  header << "// Generated from proto/errors.toml. Every error of Tailrace; the number is the wire code and the E-code.\n"
            "#pragma once\n#include <cstdint>\n#include <string_view>\n\nnamespace tailrace {\n\nenum class Errc : std::uint16_t {\n";
  for (auto& e : entries) header << "  " << e.name << " = " << e.code << ",  // " << e.sentence << "\n";
  header << "};\n\n/// What a caller branches on, and what a person reads. Unknown codes (a newer broker's) describe themselves as `internal`.\n"
            "struct ErrcInfo {\n  Errc code;\n  std::string_view name;\n  bool retriable;\n  bool maybe_applied;\n  int exit_code;\n"
            "  std::string_view sentence;\n  std::string_view hint;         ///< may be empty\n  std::string_view explanation;  ///< several lines for a person who asks; may be empty\n};\n"
            "[[nodiscard]] const ErrcInfo& describe(Errc code);\n[[nodiscard]] bool is_known(Errc code);\n"
            "[[nodiscard]] bool is_retriable(Errc code);\n"
            "/// All of them, in the order of the file; `count` receives how many.\n[[nodiscard]] const ErrcInfo* all_errors(unsigned& count);\n\n}  // namespace tailrace\n";
  source << "// Generated from proto/errors.toml.\n#include \"tailrace/errc.h\"\n\nnamespace tailrace {\nnamespace {\n\nconstexpr ErrcInfo kErrors[] = {\n";
  for (auto& e : entries) {
    source << "    {Errc::" << e.name << ", " << quoted(e.name) << ", " << (e.retriable ? "true" : "false") << ", "
           << (e.maybe_applied ? "true" : "false") << ", " << e.exit << ", " << quoted(e.sentence) << ", " << quoted(e.hint) << ", " << quoted(e.explanation) << "},\n";
  }
  source << "};\n\nconst ErrcInfo* find(Errc code) {\n  for (const auto& e : kErrors) {\n    if (e.code == code) return &e;\n  }\n  return nullptr;\n}\n\n"
            "}  // namespace\n\nconst ErrcInfo& describe(Errc code) {\n  const ErrcInfo* found = find(code);\n  return found ? *found : kErrors[0];\n}\n"
            "bool is_known(Errc code) { return find(code) != nullptr; }\nbool is_retriable(Errc code) { return describe(code).retriable; }\n"
            "const ErrcInfo* all_errors(unsigned& count) {\n  count = sizeof kErrors / sizeof kErrors[0];\n  return kErrors;\n}\n\n}  // namespace tailrace\n";
  doc << "# Errors\n\nGenerated from `proto/errors.toml`. `tailrace explain E2031` prints the same.\n\n"
         "| Code | Name | Meaning | What to do | Retry may help | May have been applied | Exit |\n|---|---|---|---|---|---|---|\n";
  for (auto& e : entries) {
    doc << "| E" << e.code << " | `" << e.name << "` | " << e.sentence << " | " << e.hint << " | " << (e.retriable ? "yes" : "no") << " | "
        << (e.maybe_applied ? "yes" : "no") << " | " << e.exit << " |\n";
  }
  doc << "\n## More about some of them\n";
  for (auto& e : entries) {
    if (!e.explanation.empty()) doc << "\n### E" << e.code << " " << e.name << "\n\n" << e.explanation << "\n";
  }
  return header && source && doc ? 0 : 1;
} catch (const std::exception& e) {
  std::cerr << "errors_gen: " << e.what() << "\n";
  return 1;
}
