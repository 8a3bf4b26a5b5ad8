#include "isoline/backends/cuda/pack.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

namespace isoline::cuda {
namespace {

uint16_t to_bits(DataType type, float value) {
  uint16_t bits = 0;
  if (type == DataType::kFloat16) {
    const __half half = __float2half_rn(value);
    std::memcpy(&bits, &half, 2);
  } else {
    const __nv_bfloat16 half = __float2bfloat16_rn(value);
    std::memcpy(&bits, &half, 2);
  }
  return bits;
}

// As cvt.rna.tf32: 10 bits after the point, ties away from zero.
float to_tf32(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & ~0x1fffu;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Where the weight of input k (0..15) and output o (0..31) lies in the 512 values that two 16-byte loads of a
// warp get.
size_t fragment_slot(size_t k, size_t o) {
  const size_t column = o / 8 * 2 + o % 2, tile = o % 8 / 2;
  const size_t lane = column * 4 + k % 8 / 2, slot = tile % 2 * 4 + k / 8 * 2 + k % 2;
  return (tile / 2 * 32 + lane) * 8 + slot;
}

// mma.m16n8k8 of TF32: [tile of 32 outputs][chunk of 8 inputs][kz][ky][kx][half: 2][lane: 32][4 values], the
// values of a lane being k = lane % 4 + {0, 4} of column lane / 4 of two n8 tiles; columns as below.
std::vector<std::byte> pack_tf32(const float* weight, int out_channels, int in_channels, size_t taps,
                                 int tensor_channels, const int* positions) {
  const size_t out_tiles = size_t(out_channels + 31) / 32, chunks = size_t(tensor_channels + 7) / 8;
  std::vector<std::byte> packed(out_tiles * chunks * taps * 256 * 4 + 4096);
  auto* const floats = reinterpret_cast<float*>(packed.data());
  for (size_t o = 0; o < size_t(out_channels); ++o) {
    const size_t column = (o % 32) / 8 * 2 + o % 2, tile = o % 8 / 2;
    for (size_t i = 0; i < size_t(in_channels); ++i) {
      const size_t channel = positions ? size_t(positions[i]) : i, k = channel % 8;
      const size_t lane = column * 4 + k % 4, slot = tile % 2 * 2 + k / 4;
      float* const to =
          floats + ((o / 32) * chunks + channel / 8) * taps * 256 + (tile / 2 * 32 + lane) * 4 + slot;
      const float* const from = weight + (o * size_t(in_channels) + i) * taps;
      for (size_t tap = 0; tap < taps; ++tap) to[tap * 256] = to_tf32(from[tap]);
    }
  }
  return packed;
}

// A lane's accumulators of 32 columns are eight consecutive channels, as in fragment order: column 8 f + j is
// output 8 * (j / 2) + 2 * f + j % 2.
size_t column_of_32(size_t o) {
  return o % 8 / 2 * 8 + o % 32 / 8 * 2 + o % 2;
}

// conv_wgmma.cu, kernel 3x3x3: [tile of n outputs][chunk of 16 inputs][kx][kz][ky][half of the chunk][n][8
// inputs].
std::vector<std::byte> pack_wgmma(DataType type, const float* weight, int out_channels, int in_channels,
                                  int tensor_channels, const int* positions, size_t n) {
  const size_t tiles = (size_t(out_channels) + n - 1) / n, chunks = size_t(tensor_channels + 15) / 16;
  std::vector<std::byte> packed(tiles * chunks * 27 * n * 16 * 2);
  auto* const halves = reinterpret_cast<uint16_t*>(packed.data());
  for (size_t o = 0; o < size_t(out_channels); ++o) {
    const size_t column = o % n / 32 * 32 + column_of_32(o);
    for (size_t i = 0; i < size_t(in_channels); ++i) {
      const size_t channel = positions ? size_t(positions[i]) : i;
      const float* const from = weight + (o * size_t(in_channels) + i) * 27;
      for (size_t tap = 0; tap < 27; ++tap) {  // (kz, ky, kx)
        const size_t at = (o / n * chunks + channel / 16) * 27 + tap % 3 * 9 + tap / 3;
        halves[((at * 2 + channel % 16 / 8) * n + column) * 8 + channel % 8] = to_bits(type, from[tap]);
      }
    }
  }
  return packed;
}

// conv_channels.cu, kernel 3x3x3: [tile of 64 outputs][pair of chunks of 16 inputs][kz][chunk][ky][kx] [half
// of the chunk][row][8 inputs]. Rows 8 h + r of each 16 are output 4 (r / 2) + 2 h + r % 2: what a lane has
// of a voxel, once it is transposed, are four consecutive channels.
std::vector<std::byte> pack_channels(DataType type, const float* weight, int out_channels, int in_channels,
                                     int tensor_channels, const int* positions) {
  const size_t chunks = size_t(tensor_channels + 15) / 16, tiles = (size_t(out_channels) + 63) / 64;
  std::vector<std::byte> packed(tiles * chunks * 27 * 64 * 16 * 2);
  auto* const halves = reinterpret_cast<uint16_t*>(packed.data());
  for (size_t o = 0; o < size_t(out_channels); ++o) {
    const size_t row = o % 64 / 16 * 16 + o % 4 / 2 * 8 + o % 16 / 4 * 2 + o % 2;
    for (size_t i = 0; i < size_t(in_channels); ++i) {
      const size_t channel = positions ? size_t(positions[i]) : i, chunk = channel / 16,
                   half = channel % 16 / 8;
      const float* const from = weight + (o * size_t(in_channels) + i) * 27;
      for (size_t tap = 0; tap < 27; ++tap) {  // (kz, ky, kx)
        const size_t of_pair = chunks - chunk / 2 * 2 > 1 ? 2 : 1;
        const size_t slab = o / 64 * chunks * 3 + chunk / 2 * 6 + tap / 9 * of_pair + chunk % 2;
        const size_t at = ((slab * 9 + tap % 9) * 2 + half) * 64 + row;
        halves[at * 8 + channel % 8] = to_bits(type, from[tap]);
      }
    }
  }
  return packed;
}

// conv_march.cu, kernel 3x3x3: [chunk of 16 inputs, an even number][ky][kx][half of the chunk][kz][32
// outputs][8 inputs], the outputs in the order of columns that pack_wgmma() has.
std::vector<std::byte> pack_march(DataType type, const float* weight, int out_channels, int in_channels,
                                  int tensor_channels, const int* positions) {
  const size_t chunks = size_t(tensor_channels + 31) / 32 * 2;
  std::vector<std::byte> packed(chunks * 9 * 96 * 16 * 2);
  auto* const halves = reinterpret_cast<uint16_t*>(packed.data());
  for (size_t o = 0; o < size_t(out_channels); ++o) {
    for (size_t i = 0; i < size_t(in_channels); ++i) {
      const size_t channel = positions ? size_t(positions[i]) : i;
      const float* const from = weight + (o * size_t(in_channels) + i) * 27;
      for (size_t tap = 0; tap < 27; ++tap) {  // (kz, ky, kx)
        const size_t at = (channel / 16 * 9 + tap % 9) * 2 + channel % 16 / 8;
        halves[(at * 96 + tap / 9 * 32 + column_of_32(o)) * 8 + channel % 8] = to_bits(type, from[tap]);
      }
    }
  }
  return packed;
}

}  // namespace

// 16-bit types: [tile of 32 outputs][chunk of 16 inputs][kz][ky][kx][half: 2][lane: 32][8 values], the values
// of a lane being the B fragments of mma.m16n8k16 of two n8 tiles f = 2 * half and f + 1: k = 2 * (lane % 4)
// + {0, 1, 8, 9} of column lane / 4. Column j of tile f is output 8 * (j / 2) + 2 * f + j % 2, so that a
// lane's accumulators of the four tiles are eight consecutive channels. float32: [tile of 32
// outputs][input][kz][ky][kx][32]. All end with a page of zeros: the kernels load one step ahead.
std::vector<std::byte> pack_conv_weights(DataType type, const float* weight, int out_channels,
                                         int in_channels, const ConvShape& shape, int tensor_channels,
                                         const int* positions, WeightLayout layout) {
  if (layout == WeightLayout::kChannels) {
    return pack_channels(type, weight, out_channels, in_channels, tensor_channels, positions);
  }
  if (layout == WeightLayout::kMarch) {
    return pack_march(type, weight, out_channels, in_channels, tensor_channels, positions);
  }
  if (layout != WeightLayout::kMma) {
    return pack_wgmma(type, weight, out_channels, in_channels, tensor_channels, positions,
                      layout == WeightLayout::kWgmma32 ? 32 : 64);
  }
  const size_t taps = size_t(shape.kernel[0]) * size_t(shape.kernel[1]) * size_t(shape.kernel[2]);
  if (type == DataType::kTensorFloat32) {
    return pack_tf32(weight, out_channels, in_channels, taps, tensor_channels, positions);
  }
  const size_t out_tiles = size_t(out_channels + 31) / 32;
  const size_t chunks = size_t(tensor_channels + 15) / 16;
  const bool wide = type == DataType::kFloat32;
  const size_t elements =
      wide ? out_tiles * size_t(tensor_channels) * taps * 32 : out_tiles * chunks * taps * 512;
  std::vector<std::byte> packed(elements * (wide ? 4 : 2) + 4096);
  auto* const floats = reinterpret_cast<float*>(packed.data());
  auto* const halves = reinterpret_cast<uint16_t*>(packed.data());
  for (size_t o = 0; o < size_t(out_channels); ++o) {
    for (size_t i = 0; i < size_t(in_channels); ++i) {
      const size_t channel = positions ? size_t(positions[i]) : i;
      const float* const from = weight + (o * size_t(in_channels) + i) * taps;
      if (wide) {
        float* const to = floats + ((o / 32) * size_t(tensor_channels) + channel) * taps * 32 + o % 32;
        for (size_t tap = 0; tap < taps; ++tap) to[tap * 32] = from[tap];
        continue;
      }
      const size_t k = channel % 16, column = (o % 32) / 8 * 2 + o % 2, tile = o % 8 / 2;
      const size_t lane = column * 4 + k % 8 / 2, slot = tile % 2 * 4 + k / 8 * 2 + k % 2;
      uint16_t* const to =
          halves + ((o / 32) * chunks + channel / 16) * taps * 512 + (tile / 2 * 32 + lane) * 8 + slot;
      for (size_t tap = 0; tap < taps; ++tap) to[tap * 512] = to_bits(type, from[tap]);
    }
  }
  return packed;
}

// [tile of 32 outputs][four lines][fragment order, k = line % 4 * 4 + kx]; a line is (input, kz, ky).
std::vector<std::byte> pack_planar_conv_weights(DataType type, const float* weight, int out_channels,
                                                int in_channels, const ConvShape& shape) {
  const size_t width = size_t(shape.kernel[2]);
  const size_t lines = size_t(in_channels) * size_t(shape.kernel[0]) * size_t(shape.kernel[1]);
  const size_t steps = (lines + 3) / 4, out_tiles = size_t(out_channels + 31) / 32;
  std::vector<std::byte> packed(out_tiles * steps * 512 * 2);
  auto* const halves = reinterpret_cast<uint16_t*>(packed.data());
  for (size_t o = 0; o < size_t(out_channels); ++o) {
    for (size_t line = 0; line < lines; ++line) {
      for (size_t x = 0; x < width; ++x) {
        halves[((o / 32) * steps + line / 4) * 512 + fragment_slot(line % 4 * 4 + x, o % 32)] =
            to_bits(type, weight[(o * lines + line) * width + x]);
      }
    }
  }
  return packed;
}

}  // namespace isoline::cuda
