/// CRC-32C and record walk in one pass: record_check.h says why.
///
/// CRC      folding with carry-less multiplication (Gopal et al., "Fast CRC Computation for Generic Polynomials Using
///          PCLMULQDQ Instruction", Intel 2009), four 64-byte accumulators. Leading zeros do not change a CRC whose register
///          starts at 0, so the message is padded in front to whole blocks. The register's real start value, all ones, is
///          added to the message's first four bytes, or put before them as the four bytes that lead from 0 to it.
/// Walk     the first bytes of a record are  length | attributes | timestamp delta | offset delta | key length.  Which bytes
///          belong to which field is told by their continuation bits. Neighbouring records nearly always have the same
///          widths, so the widths of one (a Layout) are kept as masks: one comparison under a mask then checks the next
///          record's widths, attributes and offset delta at once, and PEXT takes its numbers out. What does not fit is read
///          by read_record(); what that does not like is left to check_records().
#include <algorithm>

#include "codec/record_check.h"
#include "codec/record_cursor.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <array>

#define TAILRACE_FUSED __attribute__((target("avx512f,avx512bw,avx512vl,vpclmulqdq,pclmul,bmi,bmi2,sse4.2")))
#define TAILRACE_FUSED_INLINE TAILRACE_FUSED __attribute__((always_inline)) inline

namespace tailrace::broker::codec {
namespace {

namespace layout = batch_layout;

constexpr std::size_t kVector = 64;
constexpr std::size_t kBlock = 4 * kVector;

/// x^n mod P for CRC-32C, in reflected bit order and shifted left by one, as a reflected carry-less product wants it.
constexpr std::uint64_t fold_constant(unsigned n) {
  constexpr std::uint32_t kPolynomial = 0x1EDC6F41;
  std::uint32_t remainder = 1;
  for (unsigned i = 0; i < n; ++i) remainder = remainder << 1 ^ (remainder & 0x80000000u ? kPolynomial : 0);
  std::uint64_t reflected = 0;
  for (int i = 0; i < 32; ++i) reflected |= std::uint64_t{remainder >> i & 1} << (31 - i);
  return reflected << 1;
}
/// Moves a 128-bit lane `bits` towards the message's end: the low half is the earlier one.
struct FoldBy {
  std::uint64_t low, high;
};
constexpr FoldBy fold_by(unsigned bits) { return {fold_constant(bits + 32), fold_constant(bits - 32)}; }

constexpr FoldBy kFoldBlock = fold_by(8 * kBlock), kFold3 = fold_by(8 * 3 * kVector), kFold2 = fold_by(8 * 2 * kVector),
                 kFold1 = fold_by(8 * kVector), kLane0 = fold_by(384), kLane1 = fold_by(256), kLane2 = fold_by(128);

/// The four bytes that take a register of 0 to all ones: the CRC's steps, backwards.
constexpr std::uint32_t prefix_to_all_ones() {
  constexpr std::uint32_t kReflected = 0x82F63B78;
  std::uint32_t state = ~std::uint32_t{0};
  for (int i = 0; i < 32; ++i) state = (state & 0x80000000u) != 0 ? (state ^ kReflected) << 1 | 1 : state << 1;
  return state;
}

/// Four bytes with zeros on both sides, to be added to the first block wherever the message begins in it.
struct alignas(64) StartValue {
  std::array<std::uint8_t, 2 * kBlock + 4> bytes{};
  constexpr explicit StartValue(std::uint32_t value) {
    for (std::size_t i = 0; i < 4; ++i) bytes[kBlock + i] = static_cast<std::uint8_t>(value >> (8 * i));
  }
};
/// Onto the message's first four bytes, or in front of it: one of the two always lies within the first block.
constexpr StartValue kOnto{~std::uint32_t{0}}, kInFront{prefix_to_all_ones()};

TAILRACE_FUSED_INLINE __m512i spread(FoldBy fold) {
  return _mm512_set4_epi64(static_cast<long long>(fold.high), static_cast<long long>(fold.low), static_cast<long long>(fold.high),
                           static_cast<long long>(fold.low));
}
TAILRACE_FUSED_INLINE __m512i folded(__m512i from, __m512i by, __m512i onto) {
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(from, by, 0x00), _mm512_clmulepi64_epi128(from, by, 0x11), onto, 0x96);
}

/// A CRC-32C under way, a block at a time.
class BlockCrc {
 public:
  TAILRACE_FUSED_INLINE explicit BlockCrc(Bytes message) : next_{reinterpret_cast<std::uintptr_t>(message.data())}, by_{spread(kFoldBlock)} {
    blocks_ = (message.size() + kBlock - 1) / kBlock;
    std::size_t pad = blocks_ * kBlock - message.size();
    next_ -= pad;  // masked out below: never read
    const std::uint8_t* start = pad < 4 ? kOnto.bytes.data() + kBlock - pad : kInFront.bytes.data() + kBlock + 4 - pad;
    for (std::size_t i = 0; i < 4; ++i) {
      std::size_t hidden = std::min(kVector, pad - std::min(pad, i * kVector));
      __mmask64 shown = hidden == kVector ? 0 : ~std::uint64_t{0} << hidden;
      lane_[i] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(shown, at(i)), _mm512_loadu_si512(start + i * kVector));
    }
    next_ += kBlock;
    --blocks_;
  }
  /// Blocks still to fold.
  [[nodiscard]] TAILRACE_FUSED_INLINE std::size_t blocks() const { return blocks_; }
  TAILRACE_FUSED_INLINE void fold(std::size_t count) {
    blocks_ -= count;
    for (; count > 0; --count, next_ += kBlock) {
      for (std::size_t i = 0; i < 4; ++i) lane_[i] = folded(lane_[i], by_, _mm512_loadu_si512(at(i)));
    }
  }
  [[nodiscard]] TAILRACE_FUSED_INLINE std::uint32_t finish() const {
    __m512i last = folded(lane_[0], spread(kFold3), folded(lane_[1], spread(kFold2), folded(lane_[2], spread(kFold1), lane_[3])));
    __m512i by = _mm512_set_epi64(0, 0, static_cast<long long>(kLane2.high), static_cast<long long>(kLane2.low), static_cast<long long>(kLane1.high),
                                  static_cast<long long>(kLane1.low), static_cast<long long>(kLane0.high), static_cast<long long>(kLane0.low));
    __m512i moved = folded(last, by, _mm512_maskz_mov_epi64(0xC0, last));
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(moved), _mm512_extracti64x4_epi64(moved, 1));
    __m128i lane = _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    std::uint64_t crc = _mm_crc32_u64(0, static_cast<std::uint64_t>(_mm_cvtsi128_si64(lane)));
    crc = _mm_crc32_u64(crc, static_cast<std::uint64_t>(_mm_extract_epi64(lane, 1)));
    return ~static_cast<std::uint32_t>(crc);
  }

 private:
  [[nodiscard]] TAILRACE_FUSED_INLINE const void* at(std::size_t vector) const { return reinterpret_cast<const void*>(next_ + vector * kVector); }

  std::uintptr_t next_;  // a number, since padding puts it in front of the message at first
  std::size_t blocks_;
  __m512i by_;
  __m512i lane_[4];
};

constexpr std::uint64_t kContinue = 0x8080808080808080, kNumber = 0x7f7f7f7f7f7f7f7f;

/// The widths of a record's fields, as masks over the eight bytes at its start and the eight at its value length.
struct Layout {
  std::uint64_t checked = ~std::uint64_t{0};  // bits compared in every record; all and unequal: fits none
  std::uint64_t wanted = 0;                   // their values, offset delta left out
  std::uint64_t length = 0, timestamp = 0, offset = 0, key = 0;
  std::uint64_t length_bytes = 0, head_bytes = 0;
  std::uint64_t value_checked = 0, value_wanted = 0, value = 0, value_bytes = 0;
};

constexpr std::uint64_t bits_between(unsigned from, unsigned to) {
  return (to >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << to) - 1) & ~((std::uint64_t{1} << from) - 1);
}

/// A length's bits that must not change: its sign, and of a null all.
constexpr std::uint64_t fixed_bits(std::uint64_t field, std::uint64_t word) {
  std::uint64_t sign = field & -field;
  return (word & sign) != 0 ? field : sign;
}

/// The layout of the record at `at`, or one that fits nothing when its head takes more than eight bytes.
[[gnu::noinline]] TAILRACE_FUSED Layout layout_of(const std::byte* at, const std::byte* end) {
  Layout none;
  if (end - at < 8) return none;
  auto head = load_le<std::uint64_t>(at);
  unsigned edge[6] = {};  // bit positions behind length, attributes, timestamp delta, offset delta, key length
  std::uint64_t last = ~head & kContinue;
  for (int i = 1; i < 6; ++i, last &= last - 1) {
    if (last == 0) return none;
    edge[i] = static_cast<unsigned>(__builtin_ctzll(last)) + 1;
  }
  if (edge[2] != edge[1] + 8) return none;
  Layout out;
  out.length = bits_between(0, edge[1]) & kNumber;
  out.timestamp = bits_between(edge[2], edge[3]) & kNumber;
  out.offset = bits_between(edge[3], edge[4]) & kNumber;
  out.key = bits_between(edge[4], edge[5]) & kNumber;
  out.length_bytes = edge[1] / 8;
  out.head_bytes = edge[5] / 8;
  std::uint64_t fixed = (bits_between(0, edge[5]) & kContinue) | fixed_bits(out.key, head);
  out.checked = fixed | bits_between(edge[1], edge[2]) | out.offset | 1;  // attributes 0, length not negative
  out.wanted = head & fixed;
  std::uint64_t key_bytes = _pext_u64(head, out.key) >> 1;
  if (static_cast<std::uint64_t>(end - at) < out.head_bytes + key_bytes + 8) return none;
  auto value = load_le<std::uint64_t>(at + out.head_bytes + key_bytes);
  last = ~value & kContinue;
  if (last == 0) return none;
  unsigned value_edge = static_cast<unsigned>(__builtin_ctzll(last)) + 1;
  if (value_edge > 32) return none;
  out.value = bits_between(0, value_edge) & kNumber;
  out.value_checked = (bits_between(0, value_edge) & kContinue) | fixed_bits(out.value, value);
  out.value_wanted = value & out.value_checked;
  out.value_bytes = value_edge / 8;
  // A null's length is 1 and nothing else: larger odd numbers are negative lengths.
  if ((out.wanted & out.key & -out.key) != 0 && _pext_u64(out.wanted, out.key) != 1) return none;
  if ((out.value_wanted & 1) != 0 && _pext_u64(out.value_wanted, out.value) != 1) return none;
  return out;
}

struct OneRecord {
  const std::byte* next = nullptr;  // null: not good
  std::int64_t timestamp_delta = 0;
};

[[gnu::noinline]] OneRecord read_one(const std::byte* at, const std::byte* end, std::int32_t index, std::int64_t base_timestamp) {
  RawRecord record;
  std::int64_t timestamp = 0;
  if (read_record(at, end, record) || record.offset_delta != index) return {};
  if (__builtin_add_overflow(base_timestamp, record.timestamp_delta, &timestamp) || timestamp < -1) return {};
  return {record.end, record.timestamp_delta};
}

/// Below this the lower bound of timestamps could be crossed by a delta of the fast walk (at most 28 bits).
constexpr std::int64_t kBaseTimestampMin = std::int64_t{1} << 28;

class Walk {
 public:
  TAILRACE_FUSED_INLINE Walk(Bytes records, std::int64_t base_timestamp)
      : at_{records.data()}, end_{records.data() + records.size()}, base_timestamp_{base_timestamp} {}

  /// False: the record is not good, or not for us to judge.
  TAILRACE_FUSED_INLINE bool step() {
    if (ordinary()) [[likely]] return true;
    layout_ = layout_of(at_, end_);
    if (ordinary()) return true;
    OneRecord one = read_one(at_, end_, index_, base_timestamp_);
    if (!one.next) return false;
    at_ = one.next;
    ++index_;
    newest_ = std::max(newest_, one.timestamp_delta);
    return true;
  }
  TAILRACE_FUSED_INLINE bool at_end() const { return at_ == end_; }
  /// The largest timestamp delta seen if any was not negative, else some negative number.
  TAILRACE_FUSED_INLINE std::int64_t newest() const { return newest_; }

 private:
  /// Takes the record if it has the layout at hand, no headers, and lengths that add up; changes nothing otherwise.
  TAILRACE_FUSED_INLINE bool ordinary() {
    auto left = static_cast<std::uint64_t>(end_ - at_);
    if (left < 8) return false;
    auto head = load_le<std::uint64_t>(at_);
    std::uint64_t offset = _pdep_u64(static_cast<std::uint64_t>(index_) << 1, layout_.offset);
    if (((head ^ (layout_.wanted | offset)) & layout_.checked) != 0) return false;
    std::uint64_t size = layout_.length_bytes + (_pext_u64(head, layout_.length) >> 1);
    std::uint64_t value_at = layout_.head_bytes + (_pext_u64(head, layout_.key) >> 1);
    if (size > left || value_at + 8 > left) return false;
    auto value = load_le<std::uint64_t>(at_ + value_at);
    if (((value ^ layout_.value_wanted) & layout_.value_checked) != 0) return false;
    std::uint64_t headers_at = value_at + layout_.value_bytes + (_pext_u64(value, layout_.value) >> 1);
    if (headers_at + 1 != size || at_[headers_at] != std::byte{0}) return false;
    // Rotating a zig-zag number right by one gives it back if it is not negative, and something negative if it is.
    auto delta = static_cast<std::int64_t>(std::rotr(_pext_u64(head, layout_.timestamp), 1));
    newest_ = std::max(newest_, delta);
    at_ += size;
    ++index_;
    return true;
  }

  const std::byte* at_;
  const std::byte* end_;
  std::int64_t base_timestamp_;
  std::int64_t newest_ = INT64_MIN;
  std::int32_t index_ = 0;
  Layout layout_{};
};

bool processor_has_it() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("sse4.2");
}
const bool kAvailable = processor_has_it();

TAILRACE_FUSED FusedCheck fused_check_here(Bytes batch, std::int32_t record_count, std::int64_t base_timestamp, std::int64_t max_timestamp) {
  BlockCrc crc(batch.subspan(layout::kAttributes));
  Walk walk(batch.subspan(layout::kHeaderBytes), base_timestamp);
  bool good = record_count > 0 && base_timestamp >= kBaseTimestampMin;
  std::size_t records = good ? static_cast<std::size_t>(record_count) : 0;
  // Neither waits for the other's place in the bytes: they only share the instruction stream, in a fixed proportion so
  // that the loops' branches can be predicted.
  std::size_t blocks_a_turn = 1, records_a_turn = 1;
  if (records > 0) {
    if (crc.blocks() >= records) blocks_a_turn = crc.blocks() / records;
    else records_a_turn = crc.blocks() > 0 ? records / crc.blocks() : records;
  }
  while (good && crc.blocks() >= blocks_a_turn && records >= records_a_turn) {
    crc.fold(blocks_a_turn);
    for (std::size_t i = 0; i < records_a_turn; ++i) {
      if (!walk.step()) [[unlikely]] {
        good = false;
        break;
      }
    }
    records -= records_a_turn;
  }
  crc.fold(crc.blocks());
  for (; good && records > 0; --records) good = walk.step();
  std::int64_t newest = 0;
  good = good && walk.at_end() && walk.newest() >= 0 && !__builtin_add_overflow(base_timestamp, walk.newest(), &newest) && newest == max_timestamp;
  return {crc.finish(), good};
}

}  // namespace

bool fused_check_available() { return kAvailable; }

FusedCheck fused_check(Bytes batch, std::int32_t record_count, std::int64_t base_timestamp, std::int64_t max_timestamp) {
  return fused_check_here(batch, record_count, base_timestamp, max_timestamp);
}

}  // namespace tailrace::broker::codec

#else  // other processors: the portable way only

namespace tailrace::broker::codec {

bool fused_check_available() { return false; }
FusedCheck fused_check(Bytes, std::int32_t, std::int64_t, std::int64_t) { return {}; }

}  // namespace tailrace::broker::codec

#endif
