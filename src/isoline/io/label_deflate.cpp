#include "isoline/io/label_deflate.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "isoline/io/gzip.h"

namespace isoline {
namespace {

// RFC 1951 throughout.
constexpr size_t kWindow = 32768;
constexpr size_t kLongest = 258, kShortest = 3;
constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr int kLiteralCodes = 286, kDistanceCodes = 30, kLengthCodes = 19;

// Symbol, number of extra bits and their value, for a match length or distance.
struct Coded {
  uint16_t symbol;
  uint8_t extra_bits;
  uint16_t extra;
};

// Lengths 3..258 and distances 1..32768 fall into ranges that double every four (lengths) or two (distances)
// codes.
constexpr Coded code_of_length(size_t length) {
  if (length == kLongest) return {285, 0, 0};
  const uint32_t v = uint32_t(length - kShortest);
  if (v < 8) return {uint16_t(257 + v), 0, 0};
  const int bits = std::bit_width(v) - 3;  // extra bits
  return {uint16_t(257 + 4 * (bits + 1) + ((v >> bits) & 3)), uint8_t(bits),
          uint16_t(v & ((1u << bits) - 1))};
}
constexpr Coded code_of_distance(size_t distance) {
  const uint32_t v = uint32_t(distance - 1);
  if (v < 4) return {uint16_t(v), 0, 0};
  const int bits = std::bit_width(v) - 2;
  return {uint16_t(2 * (bits + 1) + ((v >> bits) & 1)), uint8_t(bits), uint16_t(v & ((1u << bits) - 1))};
}
static_assert(code_of_length(10).symbol == 264 && code_of_length(11).symbol == 265 &&
              code_of_length(13).symbol == 266);
static_assert(code_of_length(257).symbol == 284 && code_of_length(257).extra == 30 &&
              code_of_length(35).symbol == 273);
static_assert(code_of_distance(4).symbol == 3 && code_of_distance(5).symbol == 4 &&
              code_of_distance(7).symbol == 5);
static_assert(code_of_distance(24577).symbol == 29 && code_of_distance(24577).extra_bits == 13);

// Code lengths of a Huffman code, none longer than `limit`. At least two symbols get a code, so that no
// reader sees an incomplete one. Frequencies are halved until the tree is flat enough: rare, and nearly
// optimal for it.
std::vector<uint8_t> huffman_lengths(std::vector<uint32_t> frequency, int limit) {
  const size_t n = frequency.size();
  size_t used = size_t(std::count_if(frequency.begin(), frequency.end(), [](uint32_t f) { return f > 0; }));
  for (size_t i = 0; used < 2; ++i)
    if (frequency[i] == 0) {
      frequency[i] = 1;
      ++used;
    }
  std::vector<uint8_t> lengths(n, 0);
  struct Node {
    uint64_t weight;
    int parent;
  };
  for (;;) {
    std::vector<size_t> order;
    for (size_t i = 0; i < n; ++i)
      if (frequency[i] > 0) order.push_back(i);
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return frequency[a] < frequency[b]; });
    // Two queues: leaves by weight, and inner nodes, which come out by weight of themselves.
    std::vector<Node> nodes;
    for (size_t i : order) nodes.push_back({frequency[i], -1});
    const size_t leaves = nodes.size();
    size_t leaf = 0, inner = leaves;
    const auto lightest = [&] {
      const bool take_leaf =
          leaf < leaves && (inner >= nodes.size() || nodes[leaf].weight <= nodes[inner].weight);
      return take_leaf ? leaf++ : inner++;
    };
    while (nodes.size() < 2 * leaves - 1) {
      const size_t a = lightest(), b = lightest();
      nodes[a].parent = nodes[b].parent = int(nodes.size());
      nodes.push_back({nodes[a].weight + nodes[b].weight, -1});
    }
    std::vector<uint8_t> depth(nodes.size(), 0);
    int deepest = 0;
    for (size_t i = nodes.size() - 1; i-- > 0;) {
      depth[i] = uint8_t(depth[size_t(nodes[i].parent)] + 1);
      deepest = std::max(deepest, int(depth[i]));
    }
    if (deepest <= limit) {
      for (size_t i = 0; i < leaves; ++i) lengths[order[i]] = depth[i];
      return lengths;
    }
    for (uint32_t& f : frequency) f = f > 0 ? f / 2 + 1 : 0;
  }
}

// Canonical codes, bits reversed as deflate sends them.
std::vector<uint16_t> canonical_codes(const std::vector<uint8_t>& lengths) {
  std::array<uint32_t, 16> count{}, next{};
  for (uint8_t l : lengths) ++count[l];
  count[0] = 0;
  for (size_t l = 1; l < 16; ++l) next[l] = (next[l - 1] + count[l - 1]) << 1;
  std::vector<uint16_t> codes(lengths.size(), 0);
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] == 0) continue;
    uint32_t code = next[lengths[i]]++, reversed = 0;
    for (int b = 0; b < lengths[i]; ++b) reversed |= ((code >> b) & 1u) << (lengths[i] - 1 - b);
    codes[i] = uint16_t(reversed);
  }
  return codes;
}

class BitWriter {
 public:
  explicit BitWriter(std::vector<std::byte>& out) : out_(out) {}
  void put(uint32_t value, int bits) {
    buffer_ |= uint64_t(value) << filled_;
    filled_ += bits;
    while (filled_ >= 8) {
      out_.push_back(std::byte(buffer_));
      buffer_ >>= 8;
      filled_ -= 8;
    }
  }
  void align() {
    if (filled_ > 0) out_.push_back(std::byte(buffer_));
    buffer_ = 0;
    filled_ = 0;
  }

 private:
  std::vector<std::byte>& out_;
  uint64_t buffer_ = 0;
  int filled_ = 0;
};

// Length of the common beginning of a and b, at most n.
size_t common(const std::byte* a, const std::byte* b, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t x, y;
    std::memcpy(&x, a + i, 8);
    std::memcpy(&y, b + i, 8);
    if (x != y) return i + size_t(std::countr_zero(x ^ y)) / 8;
  }
  while (i < n && a[i] == b[i]) ++i;
  return i;
}

class ChunkEncoder {
 public:
  ChunkEncoder(size_t voxel_bytes, size_t row_bytes) {
    for (size_t d : {voxel_bytes, row_bytes, row_bytes - voxel_bytes, row_bytes + voxel_bytes, 2 * row_bytes})
      if (d >= 1 && d <= kWindow && std::find(distances_.begin(), distances_.end(), d) == distances_.end())
        distances_.push_back(d);
    for (size_t d : distances_) distance_codes_.push_back(code_of_distance(d));
  }

  // How far before a chunk its matches may begin.
  size_t reach() const {
    return distances_.empty() ? 0 : *std::max_element(distances_.begin(), distances_.end());
  }

  // Encodes data[begin, end) as one dynamic block, ending on a byte boundary; matches may reach back before
  // `begin`.
  void encode(std::span<const std::byte> data, size_t begin, size_t end, bool last) {
    tokens_.clear();
    out.clear();
    std::vector<uint32_t> literal_count(kLiteralCodes, 0), distance_count(kDistanceCodes, 0);
    for (size_t at = begin; at < end;) {
      const size_t most = std::min(kLongest, end - at);
      size_t best = kShortest - 1, which = 0;
      for (size_t k = 0; k < distances_.size() && best < most; ++k) {
        if (distances_[k] > at) continue;
        const std::byte* back = data.data() + at - distances_[k];
        // Only a longer match is of use: look at the byte it would have to reach first.
        if (best < most && back[best] != data[at + best]) continue;
        const size_t length = common(data.data() + at, back, most);
        if (length > best) {
          best = length;
          which = k;
        }
      }
      if (best >= kShortest) {
        tokens_.push_back(uint32_t(best << 8 | which));
        ++literal_count[code_of_length(best).symbol];
        ++distance_count[distance_codes_[which].symbol];
        at += best;
      } else {
        tokens_.push_back(uint32_t(data[at]));
        ++literal_count[size_t(data[at])];
        ++at;
      }
    }
    literal_count[256] = 1;
    write_block(literal_count, distance_count, last);
  }

  std::vector<std::byte> out;

 private:
  // tokens_: a literal byte, or length << 8 | index into distances_ (lengths are at least 3).
  void write_block(const std::vector<uint32_t>& literal_count, const std::vector<uint32_t>& distance_count,
                   bool last) {
    const std::vector<uint8_t> literal_lengths = huffman_lengths(literal_count, 15);
    const std::vector<uint8_t> distance_lengths = huffman_lengths(distance_count, 15);
    const auto last_used = [](const std::vector<uint8_t>& lengths, size_t least) {
      size_t n = lengths.size();
      while (n > least && lengths[n - 1] == 0) --n;
      return n;
    };
    const size_t literals = last_used(literal_lengths, 257), distances = last_used(distance_lengths, 1);
    std::vector<uint8_t> all(literal_lengths.begin(), literal_lengths.begin() + long(literals));
    all.insert(all.end(), distance_lengths.begin(), distance_lengths.begin() + long(distances));
    // Runs of code lengths: 16 repeats the last 3-6 times, 17 and 18 are 3-10 and 11-138 zeros.
    struct Item {
      uint8_t symbol, bits, extra;
    };
    std::vector<Item> items;
    for (size_t i = 0; i < all.size();) {
      size_t run = 1;
      while (i + run < all.size() && all[i + run] == all[i]) ++run;
      if (all[i] == 0 && run >= 3) {
        run = std::min<size_t>(run, 138);
        items.push_back(run <= 10 ? Item{17, 3, uint8_t(run - 3)} : Item{18, 7, uint8_t(run - 11)});
      } else if (run >= 4) {
        run = std::min<size_t>(run, 7);
        items.push_back({all[i], 0, 0});
        items.push_back({16, 2, uint8_t(run - 4)});
      } else {
        run = 1;
        items.push_back({all[i], 0, 0});
      }
      i += run;
    }
    std::vector<uint32_t> item_count(kLengthCodes, 0);
    for (const Item& item : items) ++item_count[item.symbol];
    const std::vector<uint8_t> item_lengths = huffman_lengths(item_count, 7);
    const std::vector<uint16_t> item_codes = canonical_codes(item_lengths);
    constexpr std::array<uint8_t, kLengthCodes> kOrder{16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                       11, 4,  12, 3, 13, 2, 14, 1, 15};
    size_t sent = kLengthCodes;
    while (sent > 4 && item_lengths[kOrder[sent - 1]] == 0) --sent;

    BitWriter bits(out);
    bits.put(last ? 1 : 0, 1);
    bits.put(2, 2);
    bits.put(uint32_t(literals - 257), 5);
    bits.put(uint32_t(distances - 1), 5);
    bits.put(uint32_t(sent - 4), 4);
    for (size_t i = 0; i < sent; ++i) bits.put(item_lengths[kOrder[i]], 3);
    for (const Item& item : items) {
      bits.put(item_codes[item.symbol], item_lengths[item.symbol]);
      bits.put(item.extra, item.bits);
    }
    const std::vector<uint16_t> literal_codes = canonical_codes(literal_lengths);
    const std::vector<uint16_t> distance_codes = canonical_codes(distance_lengths);
    for (uint32_t token : tokens_) {
      const size_t length = token >> 8;
      if (length == 0) {
        bits.put(literal_codes[token], literal_lengths[token]);
        continue;
      }
      const Coded l = code_of_length(length);
      const Coded& d = distance_codes_[token & 0xff];
      bits.put(literal_codes[l.symbol], literal_lengths[l.symbol]);
      bits.put(l.extra, l.extra_bits);
      bits.put(distance_codes[d.symbol], distance_lengths[d.symbol]);
      bits.put(d.extra, d.extra_bits);
    }
    bits.put(literal_codes[256], literal_lengths[256]);
    if (!last) {  // an empty stored block brings the next chunk to a byte boundary
      bits.put(0, 3);
      bits.align();
      for (uint8_t b : {0x00, 0x00, 0xff, 0xff}) bits.put(b, 8);
    }
    bits.align();
  }

  std::vector<size_t> distances_;
  std::vector<Coded> distance_codes_;
  std::vector<uint32_t> tokens_;
};

}  // namespace

std::vector<Buffer<std::byte>> gzip_labels(size_t byte_size, const ByteSource& source, size_t voxel_bytes,
                                           size_t row_bytes, ThreadPool& pool) {
  const size_t chunks = std::max<size_t>(1, (byte_size + kChunkBytes - 1) / kChunkBytes);
  struct Worker {
    Worker(size_t voxel, size_t row) : encoder(voxel, row) {}
    ChunkEncoder encoder;
    std::vector<std::byte> bytes;  // what matches reach back to, then the chunk
  };
  std::vector<std::unique_ptr<Worker>> idle;
  std::mutex mutex;
  std::vector<Buffer<std::byte>> pieces(chunks + 2);  // head, chunks, tail
  std::vector<uint32_t> checksums(chunks);
  const auto range = [&](size_t i) {
    return std::pair(i * kChunkBytes, std::min((i + 1) * kChunkBytes, byte_size));
  };
  const auto owned = [](std::span<const std::byte> bytes) {
    Buffer<std::byte> b(bytes.size());
    std::memcpy(b.data(), bytes.data(), bytes.size());
    return b;
  };
  pool.for_each(int64_t(chunks), 1, [&](int64_t from, int64_t to) {
    std::unique_ptr<Worker> w;
    {
      const std::lock_guard lock(mutex);
      if (!idle.empty()) {
        w = std::move(idle.back());
        idle.pop_back();
      }
    }
    if (!w) w = std::make_unique<Worker>(voxel_bytes, row_bytes);
    for (size_t i = size_t(from); i < size_t(to); ++i) {
      const auto [begin, end] = range(i);
      const size_t back = std::min(begin, w->encoder.reach());
      w->bytes.resize(back + end - begin);
      if (back) source(begin - back, begin, true, w->bytes.data());
      source(begin, end, false, w->bytes.data() + back);
      w->encoder.encode(w->bytes, back, w->bytes.size(), i + 1 == chunks);
      pieces[i + 1] = owned(w->encoder.out);
      checksums[i] = crc32_of(std::span<const std::byte>(w->bytes).subspan(back));
    }
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(w));
  });
  uint32_t checksum = 0;
  for (size_t i = 0; i < chunks; ++i)
    checksum = crc32_join(checksum, checksums[i], range(i).second - range(i).first);
  pieces.front() = owned(gzip_head());
  pieces.back() = owned(gzip_tail(checksum, byte_size));
  return pieces;
}

}  // namespace isoline
