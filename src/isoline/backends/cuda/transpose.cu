// Transposed convolution with kernel == stride: a matrix product [voxels, in channels] x [in channels, taps *
// out channels] whose columns are scattered to their voxel, on tensor cores but for float32. The kernel here is
// for TF32 and for very many channels; transpose_fragments.cu has the faster one.
#include <mma.h>

#include <cstring>
#include <type_traits>

#include "isoline/backends/cuda/elements.cuh"
#include "isoline/backends/cuda/transpose_args.cuh"

namespace isoline::cuda {
namespace {

constexpr int kThreads = 256, kRows = 128, kColumns = 64, kDepth = 32;
// What a fragment is made of; T is float for TF32.
template <class T>
struct Product {
  using Type = T;
  static constexpr int kDepth = 16;
};
template <>
struct Product<float> {
  using Type = nvcuda::wmma::precision::tf32;
  static constexpr int kDepth = 8;
};
template <class Fragment>
__device__ void round_factors(Fragment& f) {
  if constexpr (std::is_same_v<typename Fragment::element_type, float>) {
#pragma unroll
    for (int i = 0; i < f.num_elements; ++i) f.x[i] = nvcuda::wmma::__float_to_tf32(f.x[i]);
  }
}

constexpr int kPitchA = kDepth + 8, kPitchB = kColumns + 8, kPitchC = kColumns + 4;

template <class T>
__global__ void __launch_bounds__(kThreads) matrix_kernel(TransposeArgs a) {
  using namespace nvcuda;
  __shared__ alignas(32) char memory[kRows * kPitchC * sizeof(float)];
  __shared__ int64_t row_voxel[kRows];
  T* tile_a = reinterpret_cast<T*>(memory);
  T* tile_b = tile_a + kRows * kPitchA;
  float* tile_c = reinterpret_cast<float*>(memory);
  const int n = blockIdx.z, warp = threadIdx.x / 32;
  const int64_t voxels = voxels_of(a.in), row0 = int64_t(blockIdx.x) * kRows;
  const int columns = a.sz * a.sy * a.sx * a.out.c, column0 = blockIdx.y * kColumns;
  const T* in = static_cast<const T*>(a.in.data) + n * voxels * a.in.pitch;
  const T* weights = static_cast<const T*>(a.weights);
  using Factor = typename Product<T>::Type;
  constexpr int kStep = Product<T>::kDepth;
  wmma::fragment<wmma::accumulator, 16, 16, kStep, float> acc[2][2];
  for (auto& row : acc)
    for (auto& f : row) wmma::fill_fragment(f, 0.0f);
  const int wr = warp / 2 * 32, wc = warp % 2 * 32;
  const float zeros[8] = {};
  if (threadIdx.x < kRows && row0 + threadIdx.x < voxels)
    row_voxel[threadIdx.x] = out_voxel(a, unsigned(row0 + threadIdx.x));
  for (int k0 = 0; k0 < a.in.c; k0 += kDepth) {
    for (int i = threadIdx.x; i < kRows * kDepth / 8; i += kThreads) {
      const int r = i / (kDepth / 8), k = i % (kDepth / 8) * 8;
      if (row0 + r < voxels && k0 + k < a.in.c) {
        float e[8];
        load8(in + (row0 + r) * a.in.pitch + k0 + k, e);
        Affine8(a.load, int64_t(n) * a.in.c + k0 + k).apply(e);
        store8(tile_a + r * kPitchA + k, e);
      } else {
        store8(tile_a + r * kPitchA + k, zeros);
      }
    }
    for (int i = threadIdx.x; i < kDepth * kColumns / 8; i += kThreads) {
      const int k = i / (kColumns / 8), c = i % (kColumns / 8) * 8, column = column0 + c;
      float e[8] = {};
      if (k0 + k < a.in.c && column < columns) {
        const int tap = column / a.out.c, o = column % a.out.c;
        load8(weights + (int64_t(tap) * a.in.c + k0 + k) * a.out.c + o, e);
      }
      store8(tile_b + k * kPitchB + c, e);
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; k += kStep) {
      wmma::fragment<wmma::matrix_a, 16, 16, kStep, Factor, wmma::row_major> fa[2];
      wmma::fragment<wmma::matrix_b, 16, 16, kStep, Factor, wmma::row_major> fb[2];
      for (int i = 0; i < 2; ++i) {
        wmma::load_matrix_sync(fa[i], tile_a + (wr + 16 * i) * kPitchA + k, kPitchA);
        wmma::load_matrix_sync(fb[i], tile_b + k * kPitchB + wc + 16 * i, kPitchB);
        round_factors(fa[i]);
        round_factors(fb[i]);
      }
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) wmma::mma_sync(acc[i][j], fa[i], fb[j], acc[i][j]);
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j)
      wmma::store_matrix_sync(tile_c + (wr + 16 * i) * kPitchC + wc + 16 * j, acc[i][j], kPitchC,
                              wmma::mem_row_major);
  __syncthreads();
  T* out = static_cast<T*>(a.out.data) + n * voxels_of(a.out) * a.out.pitch;
  // A thread's columns stay the same: kThreads is a multiple of the groups of eight in a row.
  const int c = threadIdx.x % (kColumns / 8) * 8, column = column0 + c;
  if (column >= columns) return;
  const int tap = column / a.out.c, o = column % a.out.c;
  T* to = out + tap_offset(a, tap) * a.out.pitch + o;
  float bias[8];
  for (int j = 0; j < 8; ++j) bias[j] = a.bias ? a.bias[o + j] : 0.0f;
  for (int r = threadIdx.x / (kColumns / 8); r < kRows && row0 + r < voxels; r += kThreads / (kColumns / 8)) {
    float e[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) e[j] = tile_c[r * kPitchC + c + j] + bias[j];
    store8(to + row_voxel[r] * a.out.pitch, e);
  }
}

// float32: one thread per output value.
__global__ void __launch_bounds__(kThreads) plain_kernel(TransposeArgs a) {
  const int n = blockIdx.y, columns = a.sz * a.sy * a.sx * a.out.c;
  const int64_t voxels = voxels_of(a.in);
  const float* in = static_cast<const float*>(a.in.data) + n * voxels * a.in.pitch;
  const float* affine = a.load.scale_shift ? a.load.scale_shift + int64_t(n) * a.in.c * 2 : nullptr;
  float* out = static_cast<float*>(a.out.data) + n * voxels_of(a.out) * a.out.pitch;
  const int across = blockIdx.z * blockDim.x + threadIdx.x;  // of the columns
  if (across >= columns) return;
  const int tap = across / a.out.c, o = across % a.out.c;
  for (int64_t v = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; v < voxels;
       v += int64_t(gridDim.x) * blockDim.y) {
    const float* w = static_cast<const float*>(a.weights) + int64_t(tap) * a.in.c * a.out.c + o;
    float sum = 0;
    for (int k = 0; k < a.in.c; ++k) {
      float e = in[v * a.in.pitch + k];
      if (affine) e = leaky(e * affine[2 * k] + affine[2 * k + 1], a.load.slope);
      sum += e * w[int64_t(k) * a.out.c];
    }
    out[(out_voxel(a, unsigned(v)) + tap_offset(a, tap)) * a.out.pitch + o] =
        sum + (a.bias ? a.bias[o] : 0.0f);
  }
}

template <class T>
std::vector<std::byte> pack(const float* weight, int in_channels, int out_channels, int taps,
                            int tensor_channels, const int* positions) {
  const size_t oc = size_t(out_channels + 7) / 8 * 8, ic = size_t(tensor_channels);
  std::vector<T> packed(size_t(taps) * ic * oc);
  std::memset(static_cast<void*>(packed.data()), 0, packed.size() * sizeof(T));
  for (int i = 0; i < in_channels; ++i)
    for (int o = 0; o < out_channels; ++o)
      for (int t = 0; t < taps; ++t)
        packed[(size_t(t) * ic + size_t(positions ? positions[i] : i)) * oc + size_t(o)] =
            T(weight[(size_t(i) * size_t(out_channels) + size_t(o)) * size_t(taps) + size_t(t)]);
  std::vector<std::byte> bytes(packed.size() * sizeof(T));
  std::memcpy(bytes.data(), packed.data(), bytes.size());
  return bytes;
}

// For transpose_fragments.cu: [tap][tile of 32 outputs][group of 32 inputs][f: 4][lane: 32][8 inputs], a lane's
// inputs being 8 * (lane % 4) + {0..7} of the group, its output 8 * (c / 2) + 2 * f + c % 2 of the tile with
// c = lane / 4.
template <class T>
std::vector<std::byte> pack_fragments(const float* weight, int in_channels, int out_channels, int taps,
                                      int tensor_channels, const int* positions) {
  const size_t groups = size_t(tensor_channels + 31) / 32, tiles = size_t(out_channels + 31) / 32;
  std::vector<T> packed(size_t(taps) * tiles * groups * 1024, T(0.0f));
  for (size_t i = 0; i < size_t(in_channels); ++i) {
    const size_t channel = positions ? size_t(positions[i]) : i;
    for (size_t o = 0; o < size_t(out_channels); ++o) {
      const size_t lane = (o % 32 / 8 * 2 + o % 2) * 4 + channel % 32 / 8, f = o % 8 / 2;
      for (size_t t = 0; t < size_t(taps); ++t)
        packed[((((t * tiles + o / 32) * groups + channel / 32) * 4 + f) * 32 + lane) * 8 + channel % 8] =
            T(weight[(i * size_t(out_channels) + o) * size_t(taps) + t]);
    }
  }
  std::vector<std::byte> bytes(packed.size() * sizeof(T));
  std::memcpy(bytes.data(), packed.data(), bytes.size());
  return bytes;
}

}  // namespace

TransposeKernel transpose_rule(DataType type, int in_channels) {
  const bool wide = type == DataType::kFloat32 || type == DataType::kTensorFloat32;
  return wide || in_channels > kMostFragmentChannels ? TransposeKernel::kTiles : TransposeKernel::kFragments;
}

cudaError_t transpose_conv(const Tensor& in, const LoadTransform& load, const Tensor& out,
                           const int stride[3], TransposeKernel kernel, const void* weights,
                           const float* bias, cudaStream_t stream) {
  const TransposeArgs a{in, out, load, weights, bias, stride[0], stride[1], stride[2]};
  if (load.first) return cudaErrorNotSupported;
  if (kernel == TransposeKernel::kFragments) {
    if (transpose_rule(in.type, in.c) != kernel) return cudaErrorNotSupported;
    return launch_transpose_fragments(a, stream);
  }
  const int columns = stride[0] * stride[1] * stride[2] * out.c;
  if (in.type == DataType::kFloat32) {
    const dim3 block(64, kThreads / 64);
    const int64_t rows = (in.voxels() + block.y - 1) / block.y;
    plain_kernel<<<dim3(unsigned(rows < 16384 ? rows : 16384), unsigned(in.n), unsigned((columns + 63) / 64)),
                   block, 0, stream>>>(a);
    return cudaGetLastError();
  }
  const dim3 grid(unsigned((in.voxels() + kRows - 1) / kRows), unsigned((columns + kColumns - 1) / kColumns),
                  unsigned(in.n));
  if (in.type == DataType::kTensorFloat32)
    matrix_kernel<float><<<grid, kThreads, 0, stream>>>(a);
  else if (in.type == DataType::kFloat16)
    matrix_kernel<__half><<<grid, kThreads, 0, stream>>>(a);
  else
    matrix_kernel<__nv_bfloat16><<<grid, kThreads, 0, stream>>>(a);
  return cudaGetLastError();
}

std::vector<std::byte> pack_transpose_weights(DataType type, TransposeKernel kernel, const float* weight,
                                              int in_channels, int out_channels, int taps,
                                              int tensor_channels, const int* positions) {
  const auto packed = [&](auto t) {
    using T = decltype(t);
    return kernel == TransposeKernel::kFragments
               ? pack_fragments<T>(weight, in_channels, out_channels, taps, tensor_channels, positions)
               : pack<T>(weight, in_channels, out_channels, taps, tensor_channels, positions);
  };
  if (type == DataType::kFloat16) return packed(__half{});
  if (type == DataType::kBFloat16) return packed(__nv_bfloat16{});
  return packed(float{});
}

}  // namespace isoline::cuda
