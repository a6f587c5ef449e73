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

/// Where the numbers of a record's head, its first eight bytes, lie, as masks. Lengths are masked without their sign bit, so
/// that PEXT gives the length itself; a null key's mask is empty.
struct alignas(64) Layout {
  std::uint64_t checked = 1;  // bits of the head compared in every record
  std::uint64_t wanted = 1;   // their values, offset delta left out. These two alone fit only a record of negative length
  std::uint64_t length = 0, key = 0;
  std::uint64_t timestamp = 0, offset = 0;  // zig-zag as they are
  std::uint64_t length_bytes = 0, head_bytes = 0;
};

/// Widths in bytes, together at most seven: the attributes take the eighth.
struct Widths {
  unsigned length = 0, timestamp = 0, offset = 0, key = 0;
  bool key_null = false;
};

constexpr std::uint64_t bytes_at(unsigned from, unsigned count) {
  return (count >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * count)) - 1) << (8 * from);
}
constexpr std::uint64_t sign_bit(unsigned at) { return std::uint64_t{1} << (8 * at); }
/// The continuation bits of a field: all its bytes but the last have one.
constexpr std::uint64_t continued(unsigned at, unsigned count) { return bytes_at(at, count - 1) & kContinue; }

constexpr Layout layout_with(Widths w) {
  unsigned timestamp_at = w.length + 1, offset_at = timestamp_at + w.timestamp, key_at = offset_at + w.offset, end = key_at + w.key;
  std::uint64_t key = bytes_at(key_at, w.key) & kNumber, offset = bytes_at(offset_at, w.offset) & kNumber;
  Layout out;
  // No negative length, attributes 0, the same signs; of a null (a zig-zag 1) everything.
  out.checked = (bytes_at(0, end) & kContinue) | sign_bit(0) | bytes_at(w.length, 1) | offset | (w.key_null ? key : sign_bit(key_at));
  out.wanted = continued(0, w.length) | continued(timestamp_at, w.timestamp) | continued(offset_at, w.offset) | continued(key_at, w.key) |
               (w.key_null ? sign_bit(key_at) : 0);
  out.length = bytes_at(0, w.length) & kNumber & ~sign_bit(0);
  out.key = w.key_null ? 0 : key & ~sign_bit(key_at);
  out.timestamp = bytes_at(timestamp_at, w.timestamp) & kNumber;
  out.offset = offset;
  out.length_bytes = w.length;
  out.head_bytes = end;
  return out;
}

/// The bytes of the varint that begins with the lowest byte of `word`; above 8 when it does not end there.
TAILRACE_FUSED_INLINE unsigned varint_width(std::uint64_t word) { return static_cast<unsigned>(_tzcnt_u64(~word & kContinue)) / 8 + 1; }

/// The layout of the record at `at`, or one that fits nothing when its head takes more than eight bytes.
[[gnu::noinline]] TAILRACE_FUSED Layout layout_of(const std::byte* at, const std::byte* end) {
  if (end - at < 8) return {};
  auto head = load_le<std::uint64_t>(at);
  unsigned edge[6] = {};  // bytes up to and with: length, attributes, timestamp delta, offset delta, key length
  std::uint64_t last = ~head & kContinue;
  for (int i = 1; i < 6; ++i, last &= last - 1) {
    if (last == 0) return {};
    edge[i] = static_cast<unsigned>(_tzcnt_u64(last)) / 8 + 1;
  }
  if (edge[2] != edge[1] + 1) return {};
  return layout_with({.length = edge[1], .timestamp = edge[3] - edge[2], .offset = edge[4] - edge[3], .key = edge[5] - edge[4],
                      .key_null = (head & sign_bit(edge[4])) != 0});
}

/// What most batches begin with: a length of one to three bytes, everything else in one byte.
constexpr std::array<Layout, 6> kFirstLayouts{layout_with({1, 1, 1, 1, false}), layout_with({1, 1, 1, 1, true}),
                                              layout_with({2, 1, 1, 1, false}), layout_with({2, 1, 1, 1, true}),
                                              layout_with({3, 1, 1, 1, false}), layout_with({3, 1, 1, 1, true})};

/// A guess at a batch's first record; a wrong one costs time only.
TAILRACE_FUSED_INLINE const Layout& first_layout(Bytes records) {
  if (records.size() < 8) return kFirstLayouts[0];
  auto head = load_le<std::uint64_t>(records.data());
  unsigned length_width = std::min(varint_width(head), 3u);
  return kFirstLayouts[2 * (length_width - 1) + (head >> (8 * (length_width + 3)) & 1)];
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

/// The record before, as a guess at this one: equal lengths of record, key and value. One comparison then finds a record
/// good, and the next one can be begun at once, where else its place is known only some 10 cycles later: load, PEXT, two
/// additions. Wrong guesses cost more than they bring, so a few of them in a batch end the guessing.
struct Twin {
  std::uint64_t checked = 1, wanted = 1;  // as in Layout, and the lengths
  std::uint64_t size = ~std::uint64_t{0} >> 8, value_at = 0;  // beyond every end
  std::uint64_t value_checked = 0, value_wanted = 0;
};

/// The length of a value, from the eight bytes that begin with it: no two neighbours need the same width here.
struct ValueLength {
  std::uint64_t mask, width, length;
  bool good;
  TAILRACE_FUSED_INLINE explicit ValueLength(std::uint64_t word) {
    std::uint64_t last = ~word & kContinue & bytes_at(0, 4);  // lowest bit: the last byte's
    mask = (last ^ (last - 1)) & kNumber;
    std::uint64_t number = _pext_u64(word, mask);
    width = _tzcnt_u64(last) / 8 + 1;
    length = number / 2;
    good = last != 0 && ((number & 1) == 0 || number == 1);  // a zig-zag 1 is a null, other odd numbers are negative
  }
};

/// A walk's place. Small, and never handed out by address, so that all of it stays in registers.
struct Walk {
  const std::byte* at;
  const std::byte* end;
  std::uint64_t twice_index = 0;      // as zig-zag writes it
  std::int64_t newest = INT64_MIN;    // largest timestamp delta, exact if not negative
  int twins_left = 6;
  Layout layout;
  Twin twin{};

  [[nodiscard]] TAILRACE_FUSED_INLINE bool leaves_eight(std::uint64_t size) const {
    return reinterpret_cast<std::uintptr_t>(at) + size <= reinterpret_cast<std::uintptr_t>(end) - 8;
  }

  /// Takes one record that is not the batch's last, if it has the layout at hand, no headers, and lengths that add up.
  /// Otherwise changes nothing. At least eight bytes lie behind `at`, and so they do afterwards.
  TAILRACE_FUSED_INLINE bool ordinary() {
    auto head = load_le<std::uint64_t>(at);
    std::uint64_t numbers = head ^ _pdep_u64(twice_index, layout.offset);
    if (((numbers ^ twin.wanted) & twin.checked) == 0) {
      if (!leaves_eight(twin.size)) [[unlikely]] return false;
      const std::byte* next = at + twin.size;
      if (((load_le<std::uint64_t>(at + twin.value_at) ^ twin.value_wanted) & twin.value_checked) != 0 || next[-1] != std::byte{0}) [[unlikely]] return false;
      see(head);
      at = next;
      return true;
    }
    if (((numbers ^ layout.wanted) & layout.checked) != 0) [[unlikely]] return false;
    std::uint64_t size = layout.length_bytes + _pext_u64(head, layout.length);
    if (!leaves_eight(size)) [[unlikely]] return false;
    std::uint64_t value_at = layout.head_bytes + _pext_u64(head, layout.key);
    if (value_at >= size) [[unlikely]] return false;
    auto word = load_le<std::uint64_t>(at + value_at);
    ValueLength value(word);
    if (!value.good || value_at + value.width + value.length + 1 != size || at[size - 1] != std::byte{0}) [[unlikely]] return false;
    see(head);
    at += size;
    if (twins_left > 0) {
      --twins_left;
      twin = {};
      if (twins_left > 0) {
        twin.checked = layout.checked | layout.length | layout.key;
        twin.wanted = layout.wanted | (head & (layout.length | layout.key));
        twin.size = size;
        twin.value_at = value_at;
        twin.value_checked = value.mask | (kContinue & (value.mask | value.mask << 1));
        twin.value_wanted = word & twin.value_checked;
      }
    }
    return true;
  }

  /// The same for the batch's last record, which ends where the batch does.
  TAILRACE_FUSED_INLINE bool ordinary_last() {
    auto left = static_cast<std::uint64_t>(end - at);
    if (left < 8) return false;
    auto head = load_le<std::uint64_t>(at);
    std::uint64_t offset = _pdep_u64(twice_index, layout.offset);
    std::uint64_t size = layout.length_bytes + _pext_u64(head, layout.length);
    std::uint64_t value_at = layout.head_bytes + _pext_u64(head, layout.key);
    if (((head ^ offset ^ layout.wanted) & layout.checked) != 0 || size != left || value_at + 8 > left) return false;
    ValueLength value(load_le<std::uint64_t>(at + value_at));
    if (!value.good || value_at + value.width + value.length + 1 != size || at[size - 1] != std::byte{0}) return false;
    see(head);
    at += size;
    return true;
  }

  /// Takes whatever record is next, and tries to know the layout of what follows. False: not good.
  TAILRACE_FUSED_INLINE bool any(std::int64_t base_timestamp) {
    OneRecord one = read_one(at, end, static_cast<std::int32_t>(twice_index / 2), base_timestamp);
    if (!one.next) return false;
    at = one.next;
    newest = std::max(newest, one.timestamp_delta);
    twice_index += 2;
    return true;
  }

  /// Rotating a zig-zag number right by one gives it back if it is not negative, and something negative if it is.
  TAILRACE_FUSED_INLINE void see(std::uint64_t head) {
    newest = std::max(newest, static_cast<std::int64_t>(std::rotr(_pext_u64(head, layout.timestamp), 1)));
    twice_index += 2;
  }
};

bool processor_has_it() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("sse4.2");
}
const bool kAvailable = processor_has_it();

/// Up to here a processor's reorder buffer (some 500 operations, 14 to a block) takes the walk in beside the folding.
constexpr std::size_t kBlocksInFlight = 16;

TAILRACE_FUSED FusedCheck fused_check_here(Bytes batch, std::int32_t record_count, std::int64_t base_timestamp, std::int64_t max_timestamp) {
  BlockCrc crc(batch.subspan(layout::kAttributes));
  Bytes records = batch.subspan(layout::kHeaderBytes);
  if (record_count < 1 || base_timestamp < kBaseTimestampMin || (record_count > 1 && records.size() < 8)) {
    crc.fold(crc.blocks());
    return {crc.finish(), false};
  }
  Walk walk{.at = records.data(), .end = records.data() + records.size(), .layout = first_layout(records)};
  const std::uint64_t last = 2 * (static_cast<std::uint64_t>(record_count) - 1);  // in twice_index
  // Neither waits for the other's place in the bytes: they only share the instruction stream, in a fixed proportion so
  // that the loops' branches can be predicted.
  std::uint64_t count = static_cast<std::uint64_t>(record_count), blocks_a_turn = 1, records_a_turn = 1;
  if (crc.blocks() <= kBlocksInFlight) crc.fold(crc.blocks());
  else if (crc.blocks() >= count) blocks_a_turn = crc.blocks() / count;
  else records_a_turn = count / crc.blocks();

  bool good = true;
  std::uint64_t known = ~std::uint64_t{0};  // the record whose layout was looked up last
  for (;;) {
    bool stuck = false;
    while (walk.twice_index + 2 * records_a_turn <= last && crc.blocks() >= blocks_a_turn) {
      crc.fold(blocks_a_turn);
      std::uint64_t stop = walk.twice_index + 2 * records_a_turn;
      do stuck = !walk.ordinary();
      while (!stuck && walk.twice_index != stop);
      if (stuck) break;
    }
    if (!stuck) {
      while (walk.twice_index != last && !stuck) stuck = !walk.ordinary();
      if (!stuck) break;
    }
    if (known != walk.twice_index) {
      known = walk.twice_index;
      walk.layout = layout_of(walk.at, walk.end);
      walk.twin = {};
    } else if (!walk.any(base_timestamp) || (walk.twice_index != last && walk.end - walk.at < 8)) {
      good = false;
      break;
    }
  }
  crc.fold(crc.blocks());
  std::int64_t newest = 0;
  good = good && (walk.ordinary_last() || walk.any(base_timestamp)) && walk.at == walk.end && walk.newest >= 0 &&
         !__builtin_add_overflow(base_timestamp, walk.newest, &newest) && newest == max_timestamp;
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
