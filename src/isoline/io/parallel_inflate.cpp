#include "isoline/io/parallel_inflate.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "isoline/base/buffer.h"
#include "isoline/base/simd.h"
#include "isoline/io/gzip.h"

namespace isoline {
namespace {

// RFC 1951 throughout.
constexpr size_t kWindow = 32768;
constexpr size_t kLongest = 258;
constexpr uint16_t kReference = 0x8000;  // symbol kReference | i: byte i of the window before the piece
// What the fast loop may write past the symbols it means to write, and how many it means to write at most.
constexpr size_t kMargin = kLongest + 64;

// --- Codes
// -------------------------------------------------------------------------------------------------------

// Decoding tables: indexed by the next bits, entries of 32 bits.
//   bits 0-7    bits to take from the stream: the code and its extra bits
//   bits 8-11   of these, the code's; for a second table, how many bits index it
//   bit 13      end of block          bit 14  second table        bit 15  one of these, or no code at all
//   bits 16-30  the literal, the base of the length or distance, or where the second table begins
//   bit 31      literal
constexpr uint32_t kEnd = 1u << 13, kSecond = 1u << 14, kSpecial = 1u << 15, kLiteral = 1u << 31;
constexpr int kLiteralBits = 11, kDistanceBits = 8, kPrecodeBits = 7, kLongestCode = 15;
// Largest that tables of complete codes get (zlib's `enough 286 11 15` and `enough 30 8 15`, rounded up).
constexpr size_t kLiteralEntries = 2400, kDistanceEntries = 512;

struct Tables {
  std::array<uint32_t, kLiteralEntries> literals;
  std::array<uint32_t, kDistanceEntries> distances;
};

uint32_t length_entry(size_t symbol) {
  if (symbol < 256) return kLiteral | uint32_t(symbol) << 16;
  if (symbol == 256) return kSpecial | kEnd;
  if (symbol > 285) return kSpecial;
  if (symbol == 285) return uint32_t(kLongest) << 16;
  const uint32_t v = uint32_t(symbol - 257);
  if (v < 8) return (v + 3) << 16;
  const uint32_t extra = v / 4 - 1;
  return (((4 + v % 4) << extra) + 3) << 16 | extra;
}
uint32_t distance_entry(size_t symbol) {
  if (symbol > 29) return kSpecial;
  const uint32_t v = uint32_t(symbol);
  if (v < 4) return (v + 1) << 16;
  const uint32_t extra = v / 2 - 1;
  return (((2 + v % 2) << extra) + 1) << 16 | extra;
}
template <size_t n>
constexpr std::array<uint32_t, n> table_of(uint32_t (*entry)(size_t)) {
  std::array<uint32_t, n> out{};
  for (size_t i = 0; i < n; ++i) out[i] = entry(i);
  return out;
}
const std::array<uint32_t, 288> kLengthEntries = table_of<288>(length_entry);
const std::array<uint32_t, 32> kDistanceSymbolEntries = table_of<32>(distance_entry);
const std::array<uint32_t, 19> kPrecodeEntries =
    table_of<19>([](size_t symbol) { return uint32_t(symbol) << 16; });

uint32_t reversed(uint32_t code, int bits) {
  uint32_t out = 0;
  for (int b = 0; b < bits; ++b) out |= ((code >> b) & 1u) << (bits - 1 - b);
  return out;
}

// False unless the code is complete, or (`may_be_incomplete`: distances) has at most one symbol.
bool build_table(std::span<const uint8_t> lengths, const uint32_t* entries, int table_bits,
                 bool may_be_incomplete, std::span<uint32_t> table) {
  std::array<uint32_t, kLongestCode + 1> count{}, next{};
  for (uint8_t l : lengths) ++count[l];
  const size_t used = lengths.size() - count[0];
  count[0] = 0;
  uint32_t code = 0, kraft = 0;
  for (size_t l = 1; l <= kLongestCode; ++l) {
    code = (code + count[l - 1]) << 1;
    next[l] = code;
    kraft += count[l] << (kLongestCode - l);
  }
  const size_t primary = size_t{1} << table_bits;
  if (kraft != 1u << kLongestCode) {
    if (!may_be_incomplete || used > 1 || kraft > 1u << kLongestCode) return false;
    std::fill_n(table.begin(), primary, kSpecial);
  }
  const auto entry_of = [&](size_t symbol, uint32_t length) {
    const uint32_t e = entries[symbol];
    return e + length + (length << 8);
  };
  bool long_codes = false;
  for (size_t symbol = 0; symbol < lengths.size(); ++symbol) {
    const uint32_t l = lengths[symbol];
    if (l == 0) continue;
    if (l > uint32_t(table_bits)) {
      long_codes = true;
      continue;
    }
    const uint32_t e = entry_of(symbol, l), step = 1u << l;
    for (size_t i = reversed(next[l]++, int(l)); i < primary; i += step) table[i] = e;
  }
  if (!long_codes) return true;
  // Second tables, each as large as the longest code with its prefix needs. Complete codes fill them.
  std::array<uint8_t, size_t{1} << kLiteralBits> longest{};
  auto scan = next;
  for (uint8_t l : lengths)
    if (l > table_bits) {
      const size_t prefix = reversed(scan[l]++, l) & (primary - 1);
      longest[prefix] = std::max(longest[prefix], l);
    }
  size_t end = primary;
  for (size_t prefix = 0; prefix < primary; ++prefix) {
    if (!longest[prefix]) continue;
    const uint32_t bits = uint32_t(longest[prefix] - table_bits);
    if (end + (size_t{1} << bits) > table.size()) return false;
    table[prefix] = kSpecial | kSecond | uint32_t(end) << 16 | bits << 8 | uint32_t(table_bits);
    end += size_t{1} << bits;
  }
  for (size_t symbol = 0; symbol < lengths.size(); ++symbol) {
    const uint32_t l = lengths[symbol];
    if (l <= uint32_t(table_bits)) continue;
    const uint32_t bits = reversed(next[l]++, int(l)), rest = l - uint32_t(table_bits);
    const uint32_t second = table[bits & (primary - 1)];
    const size_t first = second >> 16, size = size_t{1} << ((second >> 8) & 15);
    const uint32_t e = entry_of(symbol, rest);
    for (size_t i = bits >> table_bits; i < size; i += size_t{1} << rest) table[first + i] = e;
  }
  return true;
}

// --- Bits
// --------------------------------------------------------------------------------------------------------

class BitReader {
 public:
  BitReader(std::span<const std::byte> bytes, uint64_t at_bit)
      : begin_(reinterpret_cast<const uint8_t*>(bytes.data())), end(begin_ + bytes.size()) {
    fast_end = bytes.size() > 16 ? end - 16 : begin_;
    in = begin_ + std::min<uint64_t>(at_bit / 8, bytes.size());
    refill();
    take(std::min(int(at_bit % 8), bits));
  }
  uint64_t position() const { return uint64_t(in - begin_) * 8 - uint64_t(bits); }
  // At least 56 bits, or all there are.
  void refill() {
    if (in < fast_end) {
      refill_fast();
      return;
    }
    while (bits <= 56 && in < end) {
      buffer |= uint64_t(*in++) << bits;
      bits += 8;
    }
  }
  void refill_fast() {  // only where in < fast_end
    uint64_t word;
    std::memcpy(&word, in, 8);
    buffer |= word << bits;
    in += (63 - bits) >> 3;
    bits |= 56;
  }
  void take(int n) {
    buffer >>= n;
    bits -= n;
  }
  // The next n <= 32 bits; false if there are not that many.
  bool get(int n, uint32_t* value) {
    if (bits < n) refill();
    if (bits < n) return false;
    *value = uint32_t(buffer & ((uint64_t{1} << n) - 1));
    take(n);
    return true;
  }
  // Forward to a byte boundary, with nothing in the buffer.
  void align() {
    take(bits & 7);
    in -= bits >> 3;
    buffer = 0;
    bits = 0;
  }

  uint64_t buffer = 0;
  int bits = 0;
  const uint8_t* in;

 private:
  const uint8_t* begin_;

 public:
  const uint8_t *end, *fast_end;
};
static_assert(std::endian::native == std::endian::little);

// The codes of a dynamic block, from behind its three header bits.
bool read_codes(BitReader& r, Tables& tables) {
  uint32_t literals, distances, sent;
  if (!r.get(5, &literals) || !r.get(5, &distances) || !r.get(4, &sent)) return false;
  literals += 257, distances += 1, sent += 4;
  if (literals > 286 || distances > 30) return false;
  constexpr std::array<uint8_t, 19> kOrder{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  std::array<uint8_t, 19> precode{};
  for (size_t i = 0; i < sent; ++i) {
    uint32_t l;
    if (!r.get(3, &l)) return false;
    precode[kOrder[i]] = uint8_t(l);
  }
  std::array<uint32_t, size_t{1} << kPrecodeBits> table;
  if (!build_table(precode, kPrecodeEntries.data(), kPrecodeBits, false, table)) return false;
  std::array<uint8_t, 286 + 30> lengths;
  for (size_t i = 0; i < literals + distances;) {
    r.refill();
    const uint32_t e = table[r.buffer & (table.size() - 1)];
    if (int(e & 0xff) > r.bits) return false;
    r.take(int(e & 0xff));
    const uint32_t symbol = e >> 16;
    if (symbol < 16) {
      lengths[i++] = uint8_t(symbol);
      continue;
    }
    uint32_t run;
    uint8_t value = 0;
    if (symbol == 16) {
      if (i == 0 || !r.get(2, &run)) return false;
      value = lengths[i - 1];
      run += 3;
    } else if (symbol == 17) {
      if (!r.get(3, &run)) return false;
      run += 3;
    } else {
      if (!r.get(7, &run)) return false;
      run += 11;
    }
    if (i + run > literals + distances) return false;
    std::fill_n(lengths.begin() + long(i), run, value);
    i += run;
  }
  if (lengths[256] == 0) return false;  // no way out of the block
  const std::span<const uint8_t> all(lengths);
  return build_table(all.first(literals), kLengthEntries.data(), kLiteralBits, false, tables.literals) &&
         build_table(all.subspan(literals, distances), kDistanceSymbolEntries.data(), kDistanceBits, true,
                     tables.distances);
}

const Tables& fixed_tables() {
  static const Tables tables = [] {
    Tables t;
    std::array<uint8_t, 288> lengths;
    for (size_t i = 0; i < 288; ++i) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    std::array<uint8_t, 32> distances;
    distances.fill(5);
    build_table(lengths, kLengthEntries.data(), kLiteralBits, false, t.literals);
    build_table(distances, kDistanceSymbolEntries.data(), kDistanceBits, false, t.distances);
    return t;
  }();
  return tables;
}

// --- Blocks
// ------------------------------------------------------------------------------------------------------

enum class BlockEnd {
  kMore,     // another block follows
  kLast,     // it was the last one
  kFull,     // no room for its symbols
  kDamaged,  // no deflate block
};

// out[0, length) = out[-distance, ...), repeating; may write 32 bytes more.
template <class Symbol>
inline void copy_match(Symbol* out, size_t distance, size_t length) {
  auto* to = reinterpret_cast<uint8_t*>(out);
  const uint8_t* from = to - distance * sizeof(Symbol);
  uint8_t* const to_end = to + length * sizeof(Symbol);
  const size_t byte_distance = distance * sizeof(Symbol);
  if (byte_distance >= 16) {
    do {
      std::memcpy(to, from, 16);
      to += 16;
      from += 16;
    } while (to < to_end);
    return;
  }
  uint64_t word;
  if ((byte_distance & (byte_distance - 1)) == 0) {  // 1, 2, 4, 8: a word repeats itself
    std::memcpy(&word, from, 8);                     // behind `to`, whatever stands there is shifted out
    if (byte_distance == 1) word = (word & 0xff) * 0x0101010101010101u;
    if (byte_distance == 2) word = (word & 0xffff) * 0x0001000100010001u;
    if (byte_distance == 4) word = (word & 0xffffffff) * 0x0000000100000001u;
    do {
      std::memcpy(to, &word, 8);
      std::memcpy(to + 8, &word, 8);
      to += 16;
    } while (to < to_end);
    return;
  }
  do {  // the first `step` bytes of each word are right when they are written
    const size_t step = std::min<size_t>(byte_distance, 8);
    std::memcpy(&word, from, 8);
    std::memcpy(to, &word, 8);
    to += step;
    from += step;
  } while (to < to_end);
}

// Where symbols go: [begin, end) with `at` the next; matches reach back to `window_begin` at most.
template <class Symbol>
struct SymbolSink {
  Symbol* window_begin;
  Symbol* at;
  Symbol* end;
};

// The symbols of one block with these codes.
template <class Symbol>
BlockEnd decode_symbols(BitReader& reader, const Tables& tables, SymbolSink<Symbol>& sink) {
  BitReader r = reader;  // a local copy stays in registers
  Symbol* out = sink.at;
  const uint32_t* const literals = tables.literals.data();
  const uint32_t* const distances = tables.distances.data();
  constexpr uint64_t kLiteralMask = (1u << kLiteralBits) - 1, kDistanceMask = (1u << kDistanceBits) - 1;
  const auto leave = [&](BlockEnd end) {
    reader = r;
    sink.at = out;
    return end;
  };
  const auto value_of = [](uint32_t e, uint64_t buffer) {
    return size_t((e >> 16) + ((buffer & ((uint64_t{1} << (e & 0xff)) - 1)) >> ((e >> 8) & 15)));
  };
  Symbol* const fast_out = size_t(sink.end - out) > kMargin ? sink.end - kMargin : out;
  while (r.in < r.fast_end && out < fast_out) {
    r.refill_fast();
    uint32_t e = literals[r.buffer & kLiteralMask];
    if (e & kLiteral) {  // as many as 56 bits hold for sure
      *out++ = Symbol((e >> 16) & 0xff);
      r.take(int(e & 0xff));
      e = literals[r.buffer & kLiteralMask];
      if (e & kLiteral) {
        *out++ = Symbol((e >> 16) & 0xff);
        r.take(int(e & 0xff));
        e = literals[r.buffer & kLiteralMask];
        if (e & kLiteral) {
          *out++ = Symbol((e >> 16) & 0xff);
          r.take(int(e & 0xff));
          e = literals[r.buffer & kLiteralMask];
          if (e & kLiteral) {
            *out++ = Symbol((e >> 16) & 0xff);
            r.take(int(e & 0xff));
            continue;
          }
        }
      }
      if (r.in >= r.fast_end) continue;  // the careful way goes on from here
      r.refill_fast();
    }
    if (e & kSpecial) {
      if (e & kSecond) {
        r.take(kLiteralBits);
        e = literals[(e >> 16) + (r.buffer & ((1u << ((e >> 8) & 15)) - 1))];
        if (e & kLiteral) {
          *out++ = Symbol((e >> 16) & 0xff);
          r.take(int(e & 0xff));
          continue;
        }
      }
      if (e & kSpecial) {
        if (!(e & kEnd)) return leave(BlockEnd::kDamaged);
        r.take(int(e & 0xff));
        return leave(BlockEnd::kMore);
      }
    }
    const size_t length = value_of(e, r.buffer);
    r.take(int(e & 0xff));
    e = distances[r.buffer & kDistanceMask];
    if (e & kSpecial) {
      if (!(e & kSecond)) return leave(BlockEnd::kDamaged);
      r.take(kDistanceBits);
      e = distances[(e >> 16) + (r.buffer & ((1u << ((e >> 8) & 15)) - 1))];
      if (e & kSpecial) return leave(BlockEnd::kDamaged);
    }
    const size_t distance = value_of(e, r.buffer);
    r.take(int(e & 0xff));
    if (distance > size_t(out - sink.window_begin)) return leave(BlockEnd::kDamaged);
    copy_match(out, distance, length);
    out += length;
  }
  // Near the end of the input or of the room: symbol by symbol, looking before every step.
  for (;;) {
    r.refill();
    uint32_t e = literals[r.buffer & kLiteralMask];
    if (e & kSecond && !(e & kLiteral)) {
      if (r.bits < kLiteralBits) return leave(BlockEnd::kDamaged);
      r.take(kLiteralBits);
      e = literals[(e >> 16) + (r.buffer & ((1u << ((e >> 8) & 15)) - 1))];
    }
    if (int(e & 0xff) > r.bits) return leave(BlockEnd::kDamaged);
    if (e & kLiteral) {
      if (out == sink.end) return leave(BlockEnd::kFull);
      *out++ = Symbol((e >> 16) & 0xff);
      r.take(int(e & 0xff));
      continue;
    }
    if (e & kSpecial) {
      if (!(e & kEnd)) return leave(BlockEnd::kDamaged);
      r.take(int(e & 0xff));
      return leave(BlockEnd::kMore);
    }
    const size_t length = value_of(e, r.buffer);
    r.take(int(e & 0xff));
    r.refill();
    e = distances[r.buffer & kDistanceMask];
    if (e & kSecond) {
      if (r.bits < kDistanceBits) return leave(BlockEnd::kDamaged);
      r.take(kDistanceBits);
      e = distances[(e >> 16) + (r.buffer & ((1u << ((e >> 8) & 15)) - 1))];
    }
    if (e & kSpecial || int(e & 0xff) > r.bits) return leave(BlockEnd::kDamaged);
    const size_t distance = value_of(e, r.buffer);
    r.take(int(e & 0xff));
    if (distance > size_t(out - sink.window_begin)) return leave(BlockEnd::kDamaged);
    if (length > size_t(sink.end - out)) return leave(BlockEnd::kFull);
    for (size_t i = 0; i < length; ++i, ++out) *out = *(out - distance);
  }
}

template <class Symbol>
BlockEnd decode_block(BitReader& r, Tables& scratch, SymbolSink<Symbol>& sink) {
  uint32_t head;
  if (!r.get(3, &head)) return BlockEnd::kDamaged;
  const bool last = head & 1;
  BlockEnd end = BlockEnd::kMore;
  switch (head >> 1) {
    case 0: {
      r.align();
      if (r.end - r.in < 4) return BlockEnd::kDamaged;
      const size_t length = size_t(r.in[0] | r.in[1] << 8), check = size_t(r.in[2] | r.in[3] << 8);
      r.in += 4;
      if ((length ^ 0xffff) != check || length > size_t(r.end - r.in)) return BlockEnd::kDamaged;
      if (length > size_t(sink.end - sink.at)) return BlockEnd::kFull;
      for (size_t i = 0; i < length; ++i) sink.at[i] = Symbol(r.in[i]);
      sink.at += length;
      r.in += length;
      break;
    }
    case 1:
      end = decode_symbols(r, fixed_tables(), sink);
      break;
    case 2:
      if (!read_codes(r, scratch)) return BlockEnd::kDamaged;
      end = decode_symbols(r, scratch, sink);
      break;
    default:
      return BlockEnd::kDamaged;
  }
  return end == BlockEnd::kMore && last ? BlockEnd::kLast : end;
}

// --- Pieces
// ------------------------------------------------------------------------------------------------------

constexpr uint64_t kNowhere = std::numeric_limits<uint64_t>::max();

// A run of whole blocks; where there is none (not ok()), what looking for it took.
struct Piece {
  uint64_t begin_bit = kNowhere, end_bit = 0;
  size_t symbols = 0;
  bool last = false;  // ends with the stream
  bool ok() const { return begin_bit != kNowhere; }
};

// The three header bits of a dynamic block that is not the last.
bool begins_like_a_piece(BitReader r) {
  uint32_t head;
  return r.get(3, &head) && head == 4;
}

// Blocks from `begin_bit` on, up to the first that begins at or behind `stop_bit` and could begin a piece.
// What does not fit into the sink is left out from the last whole block on. Not ok() if damaged or without a
// single whole block.
template <class Symbol>
Piece decode_piece(std::span<const std::byte> deflate, uint64_t begin_bit, uint64_t stop_bit, Tables& scratch,
                   SymbolSink<Symbol> sink) {
  BitReader r(deflate, begin_bit);
  const Symbol* const first = sink.at;
  Piece piece;
  for (;;) {
    const BlockEnd end = decode_block(r, scratch, sink);
    if (end == BlockEnd::kDamaged) return {kNowhere, r.position(), size_t(sink.at - first), false};
    if (end == BlockEnd::kFull) break;
    piece.begin_bit = begin_bit;
    piece.end_bit = r.position();
    piece.symbols = size_t(sink.at - first);
    piece.last = end == BlockEnd::kLast;
    if (piece.last || (piece.end_bit >= stop_bit && begins_like_a_piece(r))) break;
  }
  return piece;
}

// What sum of 2^(7 - length) four precode lengths (12 bits) have; 128 is complete.
const std::array<uint16_t, 4096> kPrecodeKraft = [] {
  std::array<uint16_t, 4096> out{};
  for (size_t i = 0; i < out.size(); ++i)
    for (size_t k = 0; k < 4; ++k)
      if (const size_t l = i >> (3 * k) & 7) out[i] = uint16_t(out[i] + (128 >> l));
  return out;
}();

// The next bit in [at, end) where header and precode of a dynamic block can stand, or kNowhere.
uint64_t find_block(std::span<const std::byte> deflate, uint64_t at, uint64_t end) {
  // Two words are looked at: near the end of the stream no piece begins.
  if (deflate.size() < 32) return kNowhere;
  end = std::min<uint64_t>(end, (deflate.size() - 32) * 8);
  constexpr uint64_t kAtOnce = 40;  // bits whose 17 header bits are in a word however it lies
  for (; at < end; at += kAtOnce) {
    uint64_t w;
    std::memcpy(&w, deflate.data() + at / 8, 8);
    w >>= at % 8;  // 57 bits at least
    // Header bits 0, 0, 1; five bits each for lengths and distances, of which 30 and 31 are not used.
    uint64_t may = ~w & ~(w >> 1) & w >> 2 & ~(w >> 4 & w >> 5 & w >> 6 & w >> 7) &
                   ~(w >> 9 & w >> 10 & w >> 11 & w >> 12) & ((uint64_t{1} << kAtOnce) - 1);
    for (; may; may &= may - 1) {
      const uint64_t here = at + uint64_t(std::countr_zero(may));
      if (here >= end) return kNowhere;
      const int sent = int(w >> (here - at + 13) & 15) + 4;
      const uint64_t from = here + 17;
      uint64_t word, more;
      std::memcpy(&word, deflate.data() + from / 8, 8);
      std::memcpy(&more, deflate.data() + from / 8 + 8, 8);
      uint64_t lengths = word >> (from % 8);
      if (from % 8) lengths |= more << (64 - from % 8);
      lengths &= (uint64_t{1} << (3 * sent)) - 1;
      int kraft = 0;
      for (; lengths; lengths >>= 12) kraft += kPrecodeKraft[lengths & 4095];
      if (kraft == 128) return here;
    }
  }
  return kNowhere;
}

// Symbols to bytes: literals as they are, references looked up.
ISOLINE_MULTIVERSION
void bytes_of(const uint16_t* symbols, size_t n, const uint8_t* window, uint8_t* out) {
  constexpr size_t kStep = 64;
  size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    uint16_t any = 0;
    for (size_t k = 0; k < kStep; ++k) {
      any |= symbols[i + k];
      out[i + k] = uint8_t(symbols[i + k]);
    }
    if (any & kReference)
      for (size_t k = 0; k < kStep; ++k)
        if (symbols[i + k] & kReference) out[i + k] = window[symbols[i + k] & (kWindow - 1)];
  }
  for (; i < n; ++i)
    out[i] = symbols[i] & kReference ? window[symbols[i] & (kWindow - 1)] : uint8_t(symbols[i]);
}

// The symbols of one share: a window of references, then what was decoded.
class Share {
 public:
  explicit Share(size_t max_symbols) : room_(kWindow + max_symbols) {
    for (size_t i = 0; i < kWindow; ++i) room_[i] = uint16_t(kReference | i);
  }
  const uint16_t* symbols() const { return room_.data() + kWindow; }
  // Symbols before the first are references into the window before the piece, so the last kWindow are always
  // there.
  const uint16_t* last_window() const { return room_.data() + piece.symbols; }

  // Looks for a beginning in [begin_bit, stop_bit) and decodes from there. Wrong beginnings are rare and end
  // within a block; bytes made to have many and long ones are given up after the work of about two shares.
  void decode(std::span<const std::byte> deflate, uint64_t begin_bit, uint64_t stop_bit) {
    piece = {};
    Tables tables;
    uint64_t wasted_bits = 0, wasted_symbols = 0;
    const uint64_t most_bits = 2 * (stop_bit - begin_bit), most_symbols = room_.size();
    for (int tries = 0; tries < 2000 && wasted_bits < most_bits && wasted_symbols < most_symbols; ++tries) {
      begin_bit = find_block(deflate, begin_bit, stop_bit);
      if (begin_bit == kNowhere) return;
      const SymbolSink<uint16_t> sink{room_.data(), room_.data() + kWindow, room_.data() + room_.size()};
      piece = decode_piece(deflate, begin_bit, stop_bit, tables, sink);
      if (piece.ok()) return;
      wasted_bits += piece.end_bit - begin_bit;
      wasted_symbols += piece.symbols;
      ++begin_bit;
    }
  }

  Piece piece;
  std::vector<uint8_t> window;  // before the piece, once known
  size_t out_begin = 0;
  uint32_t crc32 = 0;

 private:
  Buffer<uint16_t> room_;
};

}  // namespace

std::optional<ParallelInflated> inflate_parallel_in_chunks(std::span<const std::byte> deflate,
                                                           std::span<std::byte> out, size_t chunk_bytes,
                                                           size_t chunks_at_once, size_t max_symbols,
                                                           ThreadPool& pool) {
  auto* const bytes = reinterpret_cast<uint8_t*>(out.data());
  std::vector<Share> shares;
  ParallelInflated result;
  uint64_t at_bit = 0;
  const uint64_t chunk_bits = uint64_t(chunk_bytes) * 8, all_bits = uint64_t(deflate.size()) * 8;
  for (int fruitless = 0;;) {
    // The piece at the front is known to begin here, and what stands before it is known: straight to `out`.
    Piece front;
    const size_t front_begin = result.out_bytes;
    const uint64_t left = (all_bits - at_bit + chunk_bits - 1) / chunk_bits;
    const size_t count = size_t(std::clamp<uint64_t>(left, 1, chunks_at_once));
    while (shares.size() + 1 < count) shares.emplace_back(max_symbols);
    for (Share& s : shares) s.piece = {};
    pool.for_each(int64_t(count), 1, [&](int64_t from, int64_t to) {
      for (int64_t k = from; k < to; ++k) {
        const uint64_t begin = at_bit + uint64_t(k) * chunk_bits;
        if (k > 0) {
          shares[size_t(k - 1)].decode(deflate, begin, begin + chunk_bits);
          continue;
        }
        Tables tables;
        front = decode_piece(deflate, at_bit, at_bit + chunk_bits, tables,
                             SymbolSink<uint8_t>{bytes, bytes + front_begin, bytes + out.size()});
      }
    });
    if (!front.ok()) return std::nullopt;
    at_bit = front.end_bit;
    result.out_bytes += front.symbols;
    bool last = front.last;
    // Pieces that go on where the one before ends. A share passed over by a long block has none to offer.
    std::vector<Share*> joined;
    std::array<uint8_t, kWindow> window;
    for (Share& s : shares) {
      if (last || result.out_bytes < kWindow) break;
      if (!s.piece.ok() || s.piece.begin_bit < at_bit) continue;
      if (s.piece.begin_bit > at_bit) break;
      if (s.piece.symbols > out.size() - result.out_bytes) return std::nullopt;
      if (joined.empty())
        std::memcpy(window.data(), bytes + result.out_bytes - kWindow, kWindow);
      else
        bytes_of(joined.back()->last_window(), kWindow, joined.back()->window.data(), window.data());
      s.window.assign(window.begin(), window.end());
      s.out_begin = result.out_bytes;
      result.out_bytes += s.piece.symbols;
      at_bit = s.piece.end_bit;
      last = s.piece.last;
      joined.push_back(&s);
    }
    uint32_t front_crc = 0;
    pool.for_each(int64_t(joined.size()) + 1, 1, [&](int64_t from, int64_t to) {
      for (int64_t k = from; k < to; ++k) {
        if (k == 0) {
          front_crc = crc32_of(out.subspan(front_begin, front.symbols));
          continue;
        }
        Share& s = *joined[size_t(k - 1)];
        bytes_of(s.symbols(), s.piece.symbols, s.window.data(), bytes + s.out_begin);
        s.crc32 = crc32_of(out.subspan(s.out_begin, s.piece.symbols));
      }
    });
    result.crc32 = crc32_join(result.crc32, front_crc, front.symbols);
    for (const Share* s : joined) result.crc32 = crc32_join(result.crc32, s->crc32, s->piece.symbols);
    if (last) {
      result.in_bytes = size_t((at_bit + 7) / 8);
      return result;
    }
    fruitless = 2 * (joined.size() + 1) < count ? fruitless + 1 : 0;
    if (fruitless == 4) return std::nullopt;
  }
}

std::optional<ParallelInflated> inflate_parallel(std::span<const std::byte> deflate, std::span<std::byte> out,
                                                 uint64_t max_scratch_bytes, ThreadPool& pool) {
  // About a MiB of data a piece: long beside the search for its beginning and beside the window. Room for
  // four times that, as compression varies within a file. Two pieces a thread even out what they take.
  constexpr uint64_t kPieceBytes = uint64_t{1} << 20, kMaxSymbols = 4 * kPieceBytes;
  constexpr uint64_t kShareBytes = (kMaxSymbols + kWindow) * 2;
  constexpr int kFewestThreads = 3;  // two are as fast as one of libdeflate
  const uint64_t threads = uint64_t(pool.threads());
  if (threads < uint64_t(kFewestThreads) || deflate.size() < 64 || out.size() < 4 * kPieceBytes)
    return std::nullopt;
  if (out.size() / 32 > deflate.size()) return std::nullopt;  // mostly long matches: one thread is fast
  const uint64_t at_once = std::min<uint64_t>(2 * threads, max_scratch_bytes / kShareBytes + 1);
  if (at_once < threads) return std::nullopt;
  // As many pieces as fill the last round too.
  const uint64_t pieces = (out.size() + kPieceBytes - 1) / kPieceBytes;
  const uint64_t rounds = (pieces + at_once - 1) / at_once;
  const uint64_t chunk_bytes = std::max<uint64_t>(deflate.size() / (rounds * at_once) + 1, 16384);
  return inflate_parallel_in_chunks(deflate, out, size_t(chunk_bytes), size_t(at_once), size_t(kMaxSymbols),
                                    pool);
}

}  // namespace isoline
