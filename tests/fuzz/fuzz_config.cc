/// A configuration file of any content: problems or a configuration, never a crash; and what is accepted must print to a file
/// that loads to the same configuration.
#include "server/config.h"
#include "tests/fuzz/fuzz.h"

namespace tailrace::fuzz {

std::map<std::string, std::string> seeds() {
  std::map<std::string, std::string> out;
  out["empty"] = "";
  out["sections"] = "allow_unauthenticated = true\n[wal]\nfile_bytes = \"1MiB\"\nfiles = 3\n[listen]\nnative = \"[::1]:7070\"\n";
  out["dotted"] = "wal.files = 5\nlog.level = \"debug\"\nshutdown.deadline = \"90s\"\n";
  out["wrong-units"] = "[memory]\nhot_tail_bytes = 64\n[retention]\ninterval = \"10\"\n";
  out["wrong-types"] = "[wal]\nfiles = \"4\"\n[log]\nlevel = [1, {a = 2}]\n[http]\nthreads = 1979-05-27T07:32:00Z\n";
  out["unknown"] = "[wal]\nfile_byte = \"1MiB\"\n[future]\nkey = 1\n[config]\nunknown_keys = \"warn\"\n";
  out["long-key"] = std::string(90, 'k') + " = 1\n";
  out["strings"] = "[data]\ndirectory = '''/a \"b\" \\ c'''\n[listen]\nadvertise = \"\\u0041\\n\\t\"\n";
  out["broken"] = "[wal\nfiles = = 4\n";
  out["huge-numbers"] = "[wal]\nfiles = 9223372036854775807\nfile_bytes = \"18446744073709551615TiB\"\n[shutdown]\ndeadline = \"99999999999999999999d\"\n";
  return out;
}

}  // namespace tailrace::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailrace::broker::server;
  auto text = tailrace::broker::as_text(tailrace::fuzz::input(data, size));
  auto loaded = load_config_text(text, "fuzz.toml", {});
  if (!loaded) {
    FUZZ_ASSERT(!loaded.error().empty());
    for (const ConfigProblem& problem : loaded.error()) {
      FUZZ_ASSERT(!problem.message.empty());
      tailrace::fuzz::consume(problem.message);
    }
    return 0;
  }
  auto again = load_config_text(show_config(*loaded, true), "shown.toml", {});
  FUZZ_ASSERT(again.has_value());
  FUZZ_ASSERT(again->digest == loaded->digest);
  return 0;
}
