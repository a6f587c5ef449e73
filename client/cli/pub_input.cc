#include "pub_input.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <regex.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "record_json.h"
#include "text.h"

namespace tailrace::cli {
namespace {

// A record can have 32 MiB at most (the ceiling of message_bytes_max). As JSON each byte may take six characters.
constexpr std::size_t kLineBytesMax = 32u << 20;
constexpr std::size_t kJsonLineBytesMax = 6 * kLineBytesMax;

/// A separator is often a character that shells make hard to type: \t, \n, \r, \0 and \\ are read as in C.
std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    constexpr std::string_view kFrom = "tnr0\\", kTo{"\t\n\r\0\\", 5};
    const auto escape = text[i] == '\\' && i + 1 < text.size() ? kFrom.find(text[i + 1]) : std::string_view::npos;
    if (escape == std::string_view::npos) out += text[i];
    else out += kTo[escape], ++i;
  }
  return out;
}

}  // namespace

/// POSIX extended, through the C library: its matcher does not recurse, so a long line cannot exhaust the stack.
struct KeyRule::Regex {
  regex_t compiled{};
  bool ok = false;
  Regex() = default;
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;
  ~Regex() {
    if (ok) ::regfree(&compiled);
  }
};

KeyRule::KeyRule() = default;
KeyRule::~KeyRule() = default;
KeyRule::KeyRule(KeyRule&&) noexcept = default;
KeyRule& KeyRule::operator=(KeyRule&&) noexcept = default;

Outcome<KeyRule> KeyRule::make(const PubFlags& flags) {
  if ((flags.key ? 1 : 0) + (flags.key_separator ? 1 : 0) + (flags.key_regex ? 1 : 0) > 1) return usage("-k, --key-sep and --key-regex exclude each other");
  KeyRule rule;
  rule.fixed_ = flags.key;
  rule.allow_no_key_ = flags.allow_no_key;
  if (flags.key_separator) {
    if (flags.key_separator->empty()) return usage("--key-sep is empty");
    rule.separator_ = unescaped(*flags.key_separator);
  }
  if (flags.key_regex) {
    rule.regex_ = std::make_unique<Regex>();
    const int error = ::regcomp(&rule.regex_->compiled, flags.key_regex->c_str(), REG_EXTENDED);
    if (error != 0) {
      char text[200];
      ::regerror(error, &rule.regex_->compiled, text, sizeof text);
      return usage(fmt::format("--key-regex {}: {}", *flags.key_regex, text), "It is a POSIX extended regular expression");
    }
    rule.regex_->ok = true;
  }
  return rule;
}

std::optional<KeyRule::Split> KeyRule::apply(std::string_view line) const {
  if (fixed_) return Split{*fixed_, line};
  if (separator_) {
    if (const auto at = line.find(*separator_); at != std::string_view::npos) return Split{line.substr(0, at), line.substr(at + separator_->size())};
  } else if (regex_) {
    regmatch_t match[2];
    match[0] = {0, static_cast<regoff_t>(line.size())};
    const char empty = '\0';
    if (::regexec(&regex_->compiled, line.empty() ? &empty : line.data(), 2, match, REG_STARTEND) == 0) {
      const auto& m = regex_->compiled.re_nsub > 0 && match[1].rm_so >= 0 ? match[1] : match[0];
      return Split{line.substr(static_cast<std::size_t>(m.rm_so), static_cast<std::size_t>(m.rm_eo - m.rm_so)), line};
    }
  } else {
    return Split{std::nullopt, line};
  }
  if (allow_no_key_) return Split{std::nullopt, line};
  return std::nullopt;
}

Outcome<std::vector<Header>> parse_headers(const std::vector<std::string>& headers) {
  std::vector<Header> out;
  for (const auto& header : headers) {
    const auto equals = header.find('=');
    if (equals == std::string::npos || equals == 0) return usage(fmt::format("-H {}: not KEY=VALUE", header), "For example: -H source=cli");
    out.push_back({header.substr(0, equals), header.substr(equals + 1)});
  }
  return out;
}

PubInput::PubInput(PubInput&& other) noexcept = default;
PubInput::~PubInput() = default;  // descriptors: the process ends with the command

std::uint64_t PubInput::bytes_taken() const { return bytes_before_ + (reader_ ? reader_->bytes_taken() : 0); }

Outcome<PubInput> PubInput::open(const PubFlags& flags, int wake) {
  PubInput input{flags};
  input.wake_ = wake;
  auto keys = KeyRule::make(flags);
  if (!keys) return std::unexpected(keys.error());
  input.keys_ = std::move(*keys);
  auto headers = parse_headers(flags.headers);
  if (!headers) return std::unexpected(headers.error());
  input.common_headers_ = std::move(*headers);
  if (!flags.bodies.empty() && !flags.files.empty()) return usage("records come either as arguments or from --file, not both");
  if (flags.format == InputFormat::jsonl && (flags.key || flags.key_separator || flags.key_regex)) return usage("with -f jsonl the keys come from the lines; leave out -k, --key-sep and --key-regex");
  if (flags.keep_partition && (flags.format != InputFormat::jsonl || flags.partition)) return usage("--keep-partition needs -f jsonl and excludes -p");
  if (flags.allow_no_key && !flags.key_separator && !flags.key_regex) return usage("--allow-no-key needs --key-sep or --key-regex");
  if (flags.tombstone && (!flags.key || !flags.bodies.empty() || !flags.files.empty() || flags.format != InputFormat::lines)) {
    return usage("--tombstone publishes one record with the key of -k and no value; it takes neither a body nor a file nor -f");
  }
  input.from_arguments_ = !flags.bodies.empty() || flags.tombstone;
  bool all_regular = !flags.files.empty();
  for (const auto& file : flags.files) {
    if (file == "-") {
      input.reads_stdin_ = true;
      all_regular = false;
      continue;
    }
    // Not opened yet: opening and closing a named pipe would end its writer.
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0 || ::access(file.c_str(), R_OK) != 0) {
      const int error = errno;
      return failed(error == ENOENT ? Errc::not_found : Errc::io_error, fmt::format("--file {}: {}", file, std::strerror(error)), "Nothing was published", error == ENOENT ? kNotFound : kFailed);
    }
    if (S_ISDIR(status.st_mode)) return usage(fmt::format("--file {}: is a directory", file), "Name its files, each with --file");
    if (S_ISREG(status.st_mode)) input.bytes_total_ += static_cast<std::uint64_t>(status.st_size);
    else all_regular = false;
  }
  if (!all_regular) input.bytes_total_ = 0;
  if (!input.from_arguments_ && flags.files.empty()) {
    input.reads_stdin_ = true;
    if (const int mode = ::fcntl(0, F_GETFL); mode >= 0 && (mode & O_ACCMODE) == O_WRONLY) return usage("there is no input: standard input is closed", "Give records as arguments, with --file, or through a pipe");
    struct stat status {};
    if (::fstat(0, &status) == 0 && S_ISREG(status.st_mode)) input.bytes_total_ = static_cast<std::uint64_t>(status.st_size);
  }
  return input;
}

std::string PubInput::where() const {
  if (from_arguments_) return fmt::format("argument {}", index_);
  if (flags_->format == InputFormat::raw) return file_name_;
  return fmt::format("{}line {}", flags_->files.size() > 1 ? file_name_ + " " : "", line_in_file_);
}

Outcome<bool> PubInput::open_next_file() {
  const bool only_stdin = flags_->files.empty();
  if (reader_) bytes_before_ += reader_->bytes_read();
  reader_.reset();
  if (descriptor_ > 0) ::close(descriptor_);
  descriptor_ = -1;
  if (next_file_ >= (only_stdin ? 1 : flags_->files.size())) return false;
  file_name_ = only_stdin ? "-" : flags_->files[next_file_];
  ++next_file_;
  line_in_file_ = 0;
  whole_file_taken_ = false;
  if (file_name_ == "-") {
    descriptor_ = 0;
    file_name_ = "standard input";
  } else {
    descriptor_ = ::open(file_name_.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) return failed(Errc::io_error, fmt::format("{}: {}", file_name_, std::strerror(errno)), "Check the path", kFailed);
  }
  reader_.emplace(descriptor_, wake_, flags_->format == InputFormat::jsonl ? kJsonLineBytesMax : kLineBytesMax);
  return true;
}

Outcome<PubInput::Next> PubInput::next_piece(int wait_ms) {
  if (from_arguments_) {
    if (flags_->tombstone) {
      if (index_ > 0) return Next::end;
      ++index_;
      return Next::record;
    }
    // Arguments are repeated up to --count.
    if (index_ >= flags_->bodies.size() && flags_->count == 0) return Next::end;
    piece_ = flags_->bodies[index_ % flags_->bodies.size()];
    ++index_;
    return Next::record;
  }
  for (;;) {
    if (!reader_ || whole_file_taken_) {
      auto opened = open_next_file();
      if (!opened) return std::unexpected(opened.error());
      if (!*opened) return Next::end;
    }
    auto piece = flags_->format == InputFormat::raw ? reader_->rest() : reader_->next(wait_ms);
    if (piece) {
      piece_ = *piece;
      whole_file_taken_ = flags_->format == InputFormat::raw;
      ++index_;
      ++line_in_file_;
      return Next::record;
    }
    switch (piece.error()) {
      case LineEnd::idle: return Next::idle;
      case LineEnd::interrupted: return Next::interrupted;
      case LineEnd::end:
        if (auto opened = open_next_file(); !opened) return std::unexpected(opened.error());
        else if (!*opened) return Next::end;
        break;
      case LineEnd::too_long:
        ++line_in_file_;
        ++index_;
        return failed(Errc::too_large, fmt::format("{}: longer than {}, the most a record can have", where(), human_bytes(kLineBytesMax)), flags_->format == InputFormat::raw ? "-f raw makes one record of each file" : "Is this really one record a line?", kFailed);
      case LineEnd::error: return failed(Errc::io_error, fmt::format("{}: {}", file_name_, std::strerror(reader_->error())), "Reading stopped there", kFailed);
    }
  }
}

Outcome<> PubInput::make_record(std::string_view piece) {
  record_ = RecordView{};
  record_.partition = flags_->partition;
  if (flags_->tombstone) {
    record_.key = *flags_->key;
    record_.headers = common_headers_;
    return {};
  }
  if (flags_->format == InputFormat::jsonl) {
    auto parsed = parse_record_json(piece);
    if (!parsed) return failed(Errc::invalid_input, fmt::format("{}: {}", where(), parsed.error()), "What -f jsonl reads is what tail -o jsonl writes: tailrace help formats");
    key_ = std::move(parsed->key);
    value_ = std::move(parsed->value);
    headers_.clear();
    for (auto& header : parsed->headers) headers_.push_back({std::move(header.key), std::move(header.value)});
    headers_.insert(headers_.end(), common_headers_.begin(), common_headers_.end());
    if (key_) record_.key = *key_;
    if (value_) record_.value = *value_;
    record_.headers = headers_;
    record_.time = parsed->timestamp;
    if (flags_->keep_partition) record_.partition = parsed->partition;
    return {};
  }
  auto split = keys_.apply(piece);
  if (!split) {
    std::string why = "--key-sep is not in it";
    if (!flags_->key_separator) why = flags_->key_regex->find('\\') == std::string::npos ? "--key-regex does not match" : "--key-regex does not match; it is POSIX extended: [0-9], not \\d";
    return failed(Errc::invalid_input, fmt::format("{}: the line has no key ({})", where(), why), "Say --allow-no-key to publish such lines without one");
  }
  record_.key = split->key;
  record_.value = split->value;
  record_.headers = common_headers_;
  return {};
}

Outcome<PubInput::Next> PubInput::next(int wait_ms) {
  if (flags_->count > 0 && published_ >= flags_->count) return Next::end;
  for (;;) {
    auto got = next_piece(wait_ms);
    if (!got || *got != Next::record) return got;
    if (index_ <= flags_->skip) continue;
    if (auto made = make_record(piece_); !made) return std::unexpected(made.error());
    ++published_;
    return Next::record;
  }
}

}  // namespace tailrace::cli
