// server and dev: flags to configuration, then the broker runs in this process until SIGTERM or Ctrl-C.
#include "server/server.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "commands.h"
#include "configuration.h"
#include "sample_producer.h"

namespace tailrace::cli {

namespace server_ns = broker::server;

namespace {

/// Removed at the end, whatever happened in between.
class TemporaryDirectory {
 public:
  [[nodiscard]] static Outcome<TemporaryDirectory> make() {
    const char* base = std::getenv("TMPDIR");
    std::string pattern = std::string{base != nullptr && *base != '\0' ? base : "/tmp"} + "/tailrace-dev.XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) return failed(Errc::io_error, fmt::format("{}: {}", pattern, std::generic_category().message(errno)), "Set TMPDIR to a directory that can be written");
    TemporaryDirectory directory;
    directory.path_ = pattern;
    return directory;
  }
  TemporaryDirectory() = default;
  TemporaryDirectory(TemporaryDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TemporaryDirectory& operator=(TemporaryDirectory&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void report(const Context& context, const server_ns::StartError& error, int exit_code) {
  note(failure_line({error.code, error.message, error.hint, exit_code}, context.terminal.colour_stderr));
}

}  // namespace

Outcome<int> server(Context& context, const ServerFlags& flags) {
  if (flags.check) return config_check(context, flags);
  auto config = load_configuration(context, flags, false);
  if (!config) return std::unexpected(config.error());
  server_ns::RunHooks hooks;
  hooks.on_error = [&context](const server_ns::StartError& error) { report(context, error, kFailed); };
  if (flags.file) hooks.load = [&flags] { return read_configuration(flags, false); };  // without a file there is nothing to reload
  return server_ns::run_server(*config, std::move(hooks));
}

Outcome<int> dev(Context& context, const ServerFlags& flags) {
  TemporaryDirectory temporary;
  std::vector<server_ns::FlagValue> more;
  if (flags.ephemeral) {
    if (flags.data) return usage("--ephemeral makes a directory of its own; leave out --data");
    auto made = TemporaryDirectory::make();
    if (!made) return std::unexpected(made.error());
    temporary = std::move(*made);
    more.push_back({"data.directory", temporary.path(), "--ephemeral"});
  }
  auto config = load_configuration(context, flags, true, more);
  if (!config) return std::unexpected(config.error());
  SampleProducer sample;
  server_ns::RunHooks hooks;
  hooks.on_error = [&context](const server_ns::StartError& error) { report(context, error, kFailed); };
  hooks.on_ready = [&](const server_ns::Server& running) {
    const auto native = running.native_address().to_string(), http = running.http_address().to_string();
    const std::string servers = native == "127.0.0.1:7070" ? "" : fmt::format(" --servers {}", native);
    context.tell(fmt::format("native   {}\nmetrics  http://{}/metrics\nhealth   http://{}/readyz\ndata     {}{}", native, http, http, config->options.data_directory, flags.ephemeral ? " (removed at the end)" : ""));
    if (flags.seed == "orders") {
      sample.start(native);
      context.tell(fmt::format("\nThe topic orders gets a few events a second. Try:\n  tailrace tail orders{}\n  tailrace topic describe orders{}", servers, servers));
    } else {
      context.tell(fmt::format("\nTry:\n  echo hello | tailrace pub greetings -k me{}\n  tailrace tail greetings --from start{}", servers, servers));
    }
    context.tell("Ctrl-C stops it.");
  };
  const int exit_code = server_ns::run_server(*config, std::move(hooks));
  sample.stop();
  return exit_code;
}

}  // namespace tailrace::cli
