#include "codec/compression.h"

#include <fmt/format.h>
#include <lz4frame.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/planted.h"
#include "model/limits.h"

namespace tailrace::broker::codec {
namespace {

constexpr std::size_t kRatioMax = 256;
constexpr std::size_t kInflatedFloor = 4 * limits::kMiB;
constexpr std::size_t kRoomFirst = 64 * limits::kKiB;

constexpr std::uint32_t kLz4Magic = 0x184D2204, kZstdMagic = 0xFD2FB528;  // both stored little endian
// LZ4 frame descriptor, FLG byte: version (2 bits) | block independence | block checksum | content size | content checksum
// | reserved | dictionary id.
constexpr unsigned kLz4FlgVersionMask = 0xC0, kLz4FlgVersion1 = 0x40, kLz4FlgIndependent = 0x20, kLz4FlgDictionary = 0x01;

std::unexpected<Error> bad_frame(Compression compression, std::string_view why) {
  return fail(Errc::invalid_record, fmt::format("records: {} frame {}", name_of(compression), why));
}

std::unexpected<Error> over_budget(Compression compression, std::size_t compressed, std::size_t budget) {
  return fail(Errc::too_large, fmt::format("records: {} bytes of {} inflate to more than {}", compressed, name_of(compression), budget));
}

struct DestroyLz4 {
  void operator()(LZ4F_dctx* context) const { LZ4F_freeDecompressionContext(context); }
};
struct DestroyZstd {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};
struct DestroyZstdCompressor {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

LZ4F_dctx* lz4_context() {
  thread_local std::unique_ptr<LZ4F_dctx, DestroyLz4> context = [] {
    LZ4F_dctx* made = nullptr;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&made, LZ4F_VERSION))) made = nullptr;
    return std::unique_ptr<LZ4F_dctx, DestroyLz4>(made);
  }();
  return context.get();
}

ZSTD_DCtx* zstd_context() {
  thread_local std::unique_ptr<ZSTD_DCtx, DestroyZstd> context = [] {
    std::unique_ptr<ZSTD_DCtx, DestroyZstd> made(ZSTD_createDCtx());
    if (made && ZSTD_isError(ZSTD_DCtx_setParameter(made.get(), ZSTD_d_windowLogMax, kWindowLogMax))) made.reset();
    return made;
  }();
  return context.get();
}

Result<void> inflate_lz4(Bytes from, std::size_t budget, InflateBuffer& to) {
  constexpr auto kKind = Compression::lz4;
  if (from.size() < LZ4F_HEADER_SIZE_MIN || load_le<std::uint32_t>(from.data()) != kLz4Magic) return bad_frame(kKind, "magic is missing");
  auto flags = std::to_integer<unsigned>(from[4]);
  if ((flags & kLz4FlgVersionMask) != kLz4FlgVersion1) return bad_frame(kKind, "version is not 1");
  if ((flags & kLz4FlgIndependent) == 0) return bad_frame(kKind, "has linked blocks");
  if ((flags & kLz4FlgDictionary) != 0) return bad_frame(kKind, "wants a dictionary");
  LZ4F_dctx* context = lz4_context();
  if (!context) return fail(Errc::internal, "no memory for the lz4 decoder");
  LZ4F_resetDecompressionContext(context);

  const std::byte* in = from.data();
  std::size_t left = from.size();
  for (;;) {
    MutableBytes room = to.room(budget);
    std::byte spare{};  // with the budget used up the frame may still end, but may not give another byte
    std::size_t written = room.empty() ? 1 : room.size();
    std::size_t consumed = left;
    std::size_t hint = LZ4F_decompress(context, room.empty() ? &spare : room.data(), &written, in, &consumed, nullptr);
    if (LZ4F_isError(hint)) return bad_frame(kKind, fmt::format("is damaged: {}", LZ4F_getErrorName(hint)));
    if (room.empty() && written > 0) return over_budget(kKind, from.size(), budget);
    in += consumed;
    left -= consumed;
    to.produced(written);
    if (hint == 0) break;
    if (consumed == 0 && written == 0) return bad_frame(kKind, "is cut short");
  }
  return left == 0 ? Result<void>{} : bad_frame(kKind, "is followed by other bytes");
}

Result<void> inflate_zstd(Bytes from, std::size_t budget, InflateBuffer& to) {
  constexpr auto kKind = Compression::zstd;
  if (from.size() < 4 || load_le<std::uint32_t>(from.data()) != kZstdMagic) return bad_frame(kKind, "magic is missing");
  ZSTD_DCtx* context = zstd_context();
  if (!context) return fail(Errc::internal, "no memory for the zstd decoder");
  ZSTD_DCtx_reset(context, ZSTD_reset_session_only);

  ZSTD_inBuffer in{from.data(), from.size(), 0};
  for (;;) {
    MutableBytes room = to.room(budget);
    std::byte spare{};
    ZSTD_outBuffer out{room.empty() ? &spare : room.data(), room.empty() ? 1 : room.size(), 0};
    std::size_t before = in.pos;
    // The declared content size is never asked for. A dictionary id or a window above the cap is an error of the call.
    std::size_t hint = ZSTD_decompressStream(context, &out, &in);
    if (ZSTD_isError(hint)) return bad_frame(kKind, fmt::format("is damaged: {}", ZSTD_getErrorName(hint)));
    if (room.empty() && out.pos > 0) return over_budget(kKind, from.size(), budget);
    to.produced(out.pos);
    if (hint == 0) break;
    if (in.pos == before && out.pos == 0) return bad_frame(kKind, "is cut short");
  }
  return in.pos == in.size ? Result<void>{} : bad_frame(kKind, "is followed by other bytes");
}

Result<std::size_t> compress_lz4(int level, Bytes from, MutableBytes to) {
  LZ4F_preferences_t preferences{};
  preferences.frameInfo.blockSizeID = LZ4F_max64KB;
  preferences.frameInfo.blockMode = LZ4F_blockIndependent;
  preferences.compressionLevel = level;
  std::size_t length = LZ4F_compressFrame(to.data(), to.size(), from.data(), from.size(), &preferences);
  if (LZ4F_isError(length)) return fail(Errc::too_large, fmt::format("lz4: {}", LZ4F_getErrorName(length)));
  return length;
}

Result<std::size_t> compress_zstd(int level, Bytes from, MutableBytes to) {
  thread_local std::unique_ptr<ZSTD_CCtx, DestroyZstdCompressor> context(ZSTD_createCCtx());
  if (!context) return fail(Errc::internal, "no memory for the zstd encoder");
  ZSTD_CCtx_reset(context.get(), ZSTD_reset_session_and_parameters);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, level == 0 ? kZstdLevelDefault : level);
  // High levels choose windows that validation refuses; low ones stay below the cap by themselves.
  if (level > 15) ZSTD_CCtx_setParameter(context.get(), ZSTD_c_windowLog, kWindowLogMax);
  std::size_t length = ZSTD_compress2(context.get(), to.data(), to.size(), from.data(), from.size());
  if (ZSTD_isError(length)) return fail(Errc::too_large, fmt::format("zstd: {}", ZSTD_getErrorName(length)));
  return length;
}

/// The planted decoder bug: makes room for what a zstd frame declares before a byte of it was inflated.
void trust_declared_size(Bytes from) {
  unsigned long long declared = ZSTD_getFrameContentSize(from.data(), from.size());
  if (declared < ZSTD_CONTENTSIZE_ERROR) Buffer::allocate(declared);
}

}  // namespace

std::size_t inflated_budget(std::size_t compressed_bytes, std::size_t bytes_max) {
  std::size_t earned = compressed_bytes < bytes_max / kRatioMax ? compressed_bytes * kRatioMax : bytes_max;
  return std::min(bytes_max, std::max(kInflatedFloor, earned));
}

std::string_view name_of(Compression compression) {
  switch (compression) {
    case Compression::none: return "none";
    case Compression::gzip: return "gzip";
    case Compression::snappy: return "snappy";
    case Compression::lz4: return "lz4";
    case Compression::zstd: return "zstd";
  }
  return "unknown";
}

std::size_t compressed_bound(Compression compression, std::size_t bytes) {
  switch (compression) {
    case Compression::lz4: return LZ4F_compressFrameBound(bytes, nullptr);
    case Compression::zstd: return ZSTD_compressBound(bytes);
    case Compression::none:
    case Compression::gzip:
    case Compression::snappy: break;
  }
  return bytes;
}

Result<std::size_t> compress(Compression compression, int level, Bytes from, MutableBytes to) {
  switch (compression) {
    case Compression::lz4: return compress_lz4(level, from, to);
    case Compression::zstd: return compress_zstd(level, from, to);
    case Compression::none:
    case Compression::gzip:
    case Compression::snappy: break;
  }
  return fail(Errc::unsupported_compression, fmt::format("compression: {} is not written here", name_of(compression)));
}

Slice InflateBuffer::take() {
  std::size_t length = std::exchange(used_, 0);
  return Slice{std::exchange(block_, Buffer{}), 0, length};
}

void InflateBuffer::shrink(std::size_t keep) {
  if (block_.size() <= keep) return;
  block_ = {};
  used_ = 0;
}

MutableBytes InflateBuffer::room(std::size_t bytes_max) {
  std::size_t usable = std::min(block_.size(), bytes_max);
  if (used_ >= usable && usable < bytes_max) {
    Buffer larger = Buffer::allocate(std::min(bytes_max, std::max(kRoomFirst, block_.size() * 2)));
    if (used_ > 0) std::memcpy(larger.data(), block_.data(), used_);
    block_ = std::move(larger);
    usable = block_.size();
  }
  return used_ < usable ? block_.bytes().subspan(used_, usable - used_) : MutableBytes{};
}

Result<void> inflate(Compression compression, Bytes from, std::size_t bytes_max, InflateBuffer& to) {
  to.clear();
  std::size_t budget = inflated_budget(from.size(), bytes_max);
  switch (compression) {
    case Compression::lz4: return inflate_lz4(from, budget, to);
    case Compression::zstd:
      if (planted(PlantedBug::decoder_length)) trust_declared_size(from);
      return inflate_zstd(from, budget, to);
    case Compression::none:
    case Compression::gzip:
    case Compression::snappy: break;
  }
  return fail(Errc::unsupported_compression, fmt::format("compression: {} cannot be read here", name_of(compression)));
}

}  // namespace tailrace::broker::codec
