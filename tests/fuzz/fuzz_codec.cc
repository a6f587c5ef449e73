/// Inflating: the first byte chooses the codec, the rest is the frame.
#include <cstring>

#include "base/random.h"
#include "codec/compression.h"
#include "model/limits.h"
#include "tests/fuzz/fuzz.h"

namespace tailrace::fuzz {
namespace {

using namespace broker;
using namespace broker::codec;

constexpr std::size_t kInflatedMax = 256 * limits::kKiB;
constexpr Compression kCodecs[] = {Compression::lz4, Compression::zstd, Compression::none, Compression::gzip, Compression::snappy};

std::string framed(Compression compression, int level, std::string_view content) {
  std::string out(compressed_bound(compression, content.size()) + 1, '\0');
  out[0] = compression == Compression::lz4 ? 0 : 1;
  auto length = compress(compression, level, as_bytes(content), {reinterpret_cast<std::byte*>(out.data()) + 1, out.size() - 1});
  out.resize(length ? *length + 1 : 1);
  return out;
}

}  // namespace

std::map<std::string, std::string> seeds() {
  Random random{20};
  std::string noise, lines;
  while (noise.size() < 700) noise.push_back(static_cast<char>(random.next()));
  while (lines.size() < 3000) lines += "GET /orders/" + std::to_string(random.below(100)) + " 200\n";
  std::map<std::string, std::string> out;
  for (Compression compression : {Compression::lz4, Compression::zstd}) {
    std::string codec(name_of(compression));
    out[codec + "-empty"] = framed(compression, 0, "");
    out[codec + "-short"] = framed(compression, 0, "hello");
    out[codec + "-noise"] = framed(compression, 0, noise);
    out[codec + "-lines"] = framed(compression, 0, lines);
    out[codec + "-lines-high"] = framed(compression, 9, lines);
    out[codec + "-pages"] = framed(compression, 0, std::string(70'000, 'p'));  // a size that needs four bytes
    out[codec + "-bomb"] = framed(compression, 0, std::string(400'000, 'x'));
  }
  return out;
}

}  // namespace tailrace::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailrace::fuzz;
  if (size == 0) return 0;
  Bytes frame = input(data + 1, size - 1);
  Compression codec = kCodecs[data[0] % std::size(kCodecs)];
  InflateBuffer out;
  auto done = inflate(codec, frame, kInflatedMax, out);
  FUZZ_ASSERT(out.bytes().size() <= kInflatedMax);
  FUZZ_ASSERT(!done || codec == Compression::lz4 || codec == Compression::zstd);
  consume(out.bytes());
  if (!done) return 0;
  // What came out goes in again and comes out the same.
  std::string packed(compressed_bound(codec, out.bytes().size()), '\0');
  auto length = compress(codec, 1, out.bytes(), {reinterpret_cast<std::byte*>(packed.data()), packed.size()});
  FUZZ_ASSERT(length.has_value());
  InflateBuffer again;
  FUZZ_ASSERT(inflate(codec, as_bytes(packed).first(*length), kInflatedMax, again).has_value());
  FUZZ_ASSERT(as_text(again.bytes()) == as_text(out.bytes()));
  return 0;
}
