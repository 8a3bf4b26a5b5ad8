#include "isoline/backends/cuda/elementwise.h"

#include <algorithm>

#include "isoline/backends/cuda/elements.cuh"

namespace isoline::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 4096;

// Threads of a block as rows x groups: a thread keeps its eight channels and walks over voxels.
struct Rows {
  int groups, rows, passes;
  explicit Rows(int channels) {
    groups = channels / 8;
    passes = (groups + kThreads - 1) / kThreads;
    if (groups > kThreads) groups = kThreads;
    rows = kThreads / groups;
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    pack_kernel(const float* planar, int channels, T* out, int c, int pitch, int64_t voxels) {
  const int n = blockIdx.y;
  planar += int64_t(n) * channels * voxels;
  out += int64_t(n) * voxels * pitch;
  for (int64_t v = int64_t(blockIdx.x) * kThreads + threadIdx.x; v < voxels;
       v += int64_t(gridDim.x) * kThreads)
    for (int k = 0; k < c; k += 8) {
      float e[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) e[i] = k + i < channels ? planar[(k + i) * voxels + v] : 0.0f;
      store8(out + v * pitch + k, e);
    }
}

// One block of 4 channels x 256 rows; partial sums are taken in steps of 256 blocks, then joined in a fixed
// order.
constexpr int kFinishRows = 256, kFinishChannels = 4;
__global__ void __launch_bounds__(kFinishRows* kFinishChannels)
    finish_kernel(const float2* partial, int blocks, int c, double voxels, float eps, const float* gamma,
                  const float* beta, float2* scale_shift) {
  constexpr int kWarps = kFinishRows * kFinishChannels / 32;
  __shared__ double2 sums[kWarps][kFinishChannels];
  const int lane = threadIdx.x % kFinishChannels, row = threadIdx.x / kFinishChannels, n = blockIdx.y;
  const int channel = blockIdx.x * kFinishChannels + lane;
  double2 s{0, 0};
  const float2* p = partial + int64_t(n) * blocks * c + channel;
#pragma unroll 16
  for (int b = row; b < blocks; b += kFinishRows) {
    const float2 q = p[int64_t(b) * c];
    s.x += q.x;
    s.y += q.y;
  }
  const auto join_rows_of_warp = [&] {
#pragma unroll
    for (int d = kFinishChannels; d < 32; d *= 2) {
      s.x += __shfl_xor_sync(~0u, s.x, d);
      s.y += __shfl_xor_sync(~0u, s.y, d);
    }
  };
  join_rows_of_warp();
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 < kFinishChannels) sums[warp][lane] = s;
  __syncthreads();
  if (warp) return;
  s = {0, 0};
  for (int w = row; w < kWarps; w += 32 / kFinishChannels) s.x += sums[w][lane].x, s.y += sums[w][lane].y;
  join_rows_of_warp();
  if (row) return;
  const double mean = s.x / voxels, squares = s.y / voxels - mean * mean;
  const double variance = squares < 0 ? 0.0 : squares;  // NaN stays NaN
  const double scale = double(gamma[channel]) / sqrt(variance + double(eps));
  scale_shift[int64_t(n) * c + channel] = {float(scale), float(double(beta[channel]) - mean * scale)};
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    statistics_kernel(const T* in, int c, int pitch, int64_t voxels, int groups, int rows, float2* partial) {
  __shared__ float2 sums[kThreads][8];
  const int n = blockIdx.y, group0 = threadIdx.x % groups, row = threadIdx.x / groups;
  in += int64_t(n) * voxels * pitch;
  for (int g0 = 0; g0 * 8 < c; g0 += groups) {
    const int g = g0 + group0;
    float s[8] = {}, q[8] = {};
    if (row < rows && g * 8 < c)
      for (int64_t v = int64_t(blockIdx.x) * rows + row; v < voxels; v += int64_t(gridDim.x) * rows) {
        float e[8];
        load8(in + v * pitch + g * 8, e);
        for (int i = 0; i < 8; ++i) {
          s[i] += e[i];
          q[i] += e[i] * e[i];
        }
      }
    __syncthreads();
    for (int i = 0; i < 8; ++i) sums[threadIdx.x][i] = {s[i], q[i]};
    __syncthreads();
    if (row == 0 && g * 8 < c)
      for (int i = 0; i < 8; ++i) {
        float2 t{0, 0};
        for (int r = 0; r < rows; ++r) {
          t.x += sums[r * groups + group0][i].x;
          t.y += sums[r * groups + group0][i].y;
        }
        partial[(int64_t(n) * gridDim.x + blockIdx.x) * c + g * 8 + i] = t;
      }
  }
}

template <class T, bool kTwo>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(const T* a, int pitch_a, LoadTransform load_a, const T* b, int pitch_b,
                   LoadTransform load_b, float slope, T* out, int pitch, int c, int64_t voxels, int groups,
                   int rows) {
  const int n = blockIdx.y, row = threadIdx.x / groups;
  const int k = (blockIdx.z * groups + threadIdx.x % groups) * 8;
  if (row >= rows || k >= c) return;
  a += int64_t(n) * voxels * pitch_a + k;
  if (kTwo) b += int64_t(n) * voxels * pitch_b + k;
  out += int64_t(n) * voxels * pitch + k;
  const Affine8 fa(load_a, int64_t(n) * c + k), fb(load_b, int64_t(n) * c + k);
  const int64_t step = int64_t(gridDim.x) * rows;
  int64_t v = int64_t(blockIdx.x) * rows + row;
  constexpr int kAhead = 4;  // loads in flight before the first use
  for (; v < voxels; v += kAhead * step) {
    float e[kAhead][8], f[kTwo ? kAhead : 1][8];
#pragma unroll
    for (int j = 0; j < kAhead; ++j)
      if (v + j * step < voxels) {
        load8(a + (v + j * step) * pitch_a, e[j]);
        if (kTwo) load8(b + (v + j * step) * pitch_b, f[kTwo ? j : 0]);
      }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (v + j * step >= voxels) break;
      fa.apply(e[j]);
      if (kTwo) {
        fb.apply(f[kTwo ? j : 0]);
#pragma unroll
        for (int i = 0; i < 8; ++i) e[j][i] += f[kTwo ? j : 0][i];
      }
      if (slope != 1)
#pragma unroll
        for (int i = 0; i < 8; ++i) e[j][i] = leaky(e[j][i], slope);
      store8(out + (v + j * step) * pitch, e[j]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    pool_kernel(Tensor in, LoadTransform load, Tensor out, int sz, int sy, int sx) {
  const int groups = out.c / 8, n = blockIdx.y;
  const T* from = static_cast<const T*>(in.data) + n * voxels_of(in) * in.pitch;
  T* to = static_cast<T*>(out.data) + n * voxels_of(out) * out.pitch;
  const float count = float(sz * sy * sx);
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < voxels_of(out) * groups;
       i += int64_t(gridDim.x) * kThreads) {
    const int k = int(i % groups) * 8;
    const int64_t v = i / groups;
    const int x = int(v % out.x), y = int(v / out.x % out.y), z = int(v / out.x / out.y);
    const Affine8 affine(load, int64_t(n) * in.c + k);
    float sum[8] = {};
    for (int dz = 0; dz < sz; ++dz)
      for (int dy = 0; dy < sy; ++dy)
        for (int dx = 0; dx < sx; ++dx) {
          float e[8];
          load8(from + ((int64_t(z * sz + dz) * in.y + y * sy + dy) * in.x + x * sx + dx) * in.pitch + k, e);
          affine.apply(e);
          for (int j = 0; j < 8; ++j) sum[j] += e[j];
        }
    for (int j = 0; j < 8; ++j) sum[j] /= count;
    store8(to + v * out.pitch + k, sum);
  }
}

// kHeads at once, 4 or 8. A thread has 32 channels of its voxel in flight before it uses the first.
template <class T, int kHeads>
__global__ void __launch_bounds__(kThreads)
    head_kernel(Tensor in, LoadTransform load, const float* weights, const float* bias, int heads,
                float* planar, int* not_finite) {
  constexpr int kAhead = 4;          // groups of eight channels
  extern __shared__ float shared[];  // weights of these heads [in.c][kHeads], then scale and shift [in.c][2]
  const int n = blockIdx.y, h0 = blockIdx.z * kHeads;
  const int count = heads - h0 < kHeads ? heads - h0 : kHeads;
  float* affine = shared + in.c * kHeads;
  for (int i = threadIdx.x; i < in.c * kHeads; i += kThreads) {
    const int h = i % kHeads, k = i / kHeads;
    shared[i] = h < count ? weights[int64_t(h0 + h) * in.c + k] : 0.0f;
  }
  if (load.scale_shift)
    for (int i = threadIdx.x; i < in.c * 2; i += kThreads)
      affine[i] = load.scale_shift[int64_t(n) * in.c * 2 + i];
  __syncthreads();
  const int64_t voxels = voxels_of(in);
  const T* from = static_cast<const T*>(in.data) + n * voxels * in.pitch;
  float* to = planar + (int64_t(n) * heads + h0) * voxels;
  bool bad = false;
  for (int64_t v = int64_t(blockIdx.x) * kThreads + threadIdx.x; v < voxels;
       v += int64_t(gridDim.x) * kThreads) {
    float sum[kHeads] = {};
    for (int k0 = 0; k0 < in.c; k0 += 8 * kAhead) {
      Eight<T> raw[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j)
        if (k0 + 8 * j < in.c) raw[j] = load_raw8(from + v * in.pitch + k0 + 8 * j);
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (k0 + 8 * j >= in.c) break;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int k = k0 + 8 * j + i;
          float e = to_float(raw[j].v[i]);
          if (load.scale_shift) {
            const float2 s = reinterpret_cast<const float2*>(affine)[k];
            e = leaky(e * s.x + s.y, load.slope);
          }
#pragma unroll
          for (int h = 0; h < kHeads; h += 4) {
            const float4 w = *reinterpret_cast<const float4*>(shared + k * kHeads + h);
            sum[h] += e * w.x;
            sum[h + 1] += e * w.y;
            sum[h + 2] += e * w.z;
            sum[h + 3] += e * w.w;
          }
        }
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h)
      if (h < count) {
        const float r = sum[h] + (bias ? bias[h0 + h] : 0.0f);
        bad |= !isfinite(r);
        to[h * voxels + v] = r;
      }
  }
  if (bad) *not_finite = 1;
}

template <class T>
__global__ void __launch_bounds__(kThreads) unpack_kernel(Tensor in, LoadTransform load, const int* positions,
                                                          int channels, float* planar, int* not_finite) {
  const int n = blockIdx.y;
  const int64_t voxels = voxels_of(in);
  const T* from = static_cast<const T*>(in.data) + n * voxels * in.pitch;
  bool bad = false;
  for (int64_t v = int64_t(blockIdx.x) * kThreads + threadIdx.x; v < voxels;
       v += int64_t(gridDim.x) * kThreads)
    for (int k = 0; k < channels; ++k) {
      float e = to_float(from[v * in.pitch + positions[k]]);
      if (load.scale_shift) {
        const float* s = load.scale_shift + (int64_t(n) * in.c + positions[k]) * 2;
        e = leaky(e * s[0] + s[1], load.slope);
      }
      bad |= !isfinite(e);
      planar[(int64_t(n) * channels + k) * voxels + v] = e;
    }
  if (bad) *not_finite = 1;
}

unsigned blocks_for(int64_t items, int64_t per_block) {
  return unsigned(std::clamp<int64_t>((items + per_block - 1) / per_block, 1, kMaxBlocks));
}

}  // namespace

cudaError_t pack_input(const float* planar, int channels, const Tensor& out, cudaStream_t stream) {
  const dim3 grid(blocks_for(out.voxels(), kThreads), unsigned(out.n));
  return with_type(out.type, [&](auto t) {
    using T = decltype(t);
    pack_kernel<T><<<grid, kThreads, 0, stream>>>(planar, channels, static_cast<T*>(out.data), out.c,
                                                  out.pitch, out.voxels());
  });
}

cudaError_t finish_statistics(const Statistics& statistics, int n, int c, int64_t voxels, float eps,
                              const float* gamma, const float* beta, float* scale_shift,
                              cudaStream_t stream) {
  const dim3 grid(unsigned(c / kFinishChannels), unsigned(n));
  finish_kernel<<<grid, kFinishRows * kFinishChannels, 0, stream>>>(
      reinterpret_cast<const float2*>(statistics.partial), statistics.blocks, c, double(voxels), eps, gamma,
      beta, reinterpret_cast<float2*>(scale_shift));
  return cudaGetLastError();
}

int statistics_blocks(const Tensor& in) {
  const Rows r(in.c);
  return int(std::clamp<int64_t>(in.voxels() / (r.rows * 8), 1, 1024));
}

cudaError_t gather_statistics(const Tensor& in, const Statistics& statistics, cudaStream_t stream) {
  const Rows r(in.c);
  const dim3 grid(unsigned(statistics.blocks), unsigned(in.n));
  return with_type(in.type, [&](auto t) {
    using T = decltype(t);
    statistics_kernel<T><<<grid, kThreads, 0, stream>>>(static_cast<const T*>(in.data), in.c, in.pitch,
                                                        in.voxels(), r.groups, r.rows,
                                                        reinterpret_cast<float2*>(statistics.partial));
  });
}

cudaError_t combine(const Tensor& a, const LoadTransform& load_a, const Tensor* b,
                    const LoadTransform& load_b, float slope, const Tensor& out, cudaStream_t stream) {
  if (load_a.first || load_b.first) return cudaErrorNotSupported;
  const Rows r(out.c);
  const dim3 grid(blocks_for(out.voxels(), int64_t(r.rows) * 8), unsigned(out.n), unsigned(r.passes));
  return with_type(out.type, [&](auto t) {
    using T = decltype(t);
    const auto launch = [&](auto kernel) {
      kernel<<<grid, kThreads, 0, stream>>>(static_cast<const T*>(a.data), a.pitch, load_a,
                                            b ? static_cast<const T*>(b->data) : nullptr, b ? b->pitch : 0,
                                            load_b, slope, static_cast<T*>(out.data), out.pitch, out.c,
                                            out.voxels(), r.groups, r.rows);
    };
    b ? launch(combine_kernel<T, true>) : launch(combine_kernel<T, false>);
  });
}

cudaError_t average_pool(const Tensor& in, const LoadTransform& load, const Tensor& out, const int stride[3],
                         cudaStream_t stream) {
  if (load.first) return cudaErrorNotSupported;
  const dim3 grid(blocks_for(out.voxels() * (out.c / 8), kThreads), unsigned(out.n));
  return with_type(in.type, [&](auto t) {
    pool_kernel<decltype(t)><<<grid, kThreads, 0, stream>>>(in, load, out, stride[0], stride[1], stride[2]);
  });
}

cudaError_t head(const Tensor& in, const LoadTransform& load, const float* weights, const float* bias,
                 int heads, float* planar, int* not_finite, cudaStream_t stream) {
  if (load.first) return cudaErrorNotSupported;
  const int at_once = heads <= 4 ? 4 : 8;
  const size_t shared = size_t(in.c) * size_t(at_once + 2) * sizeof(float);
  const dim3 grid(std::min(blocks_for(in.voxels(), kThreads), 2048u), unsigned(in.n),
                  unsigned((heads + at_once - 1) / at_once));
  return with_type(in.type, [&](auto t) {
    using T = decltype(t);
    const auto kernel = at_once == 4 ? head_kernel<T, 4> : head_kernel<T, 8>;
    kernel<<<grid, kThreads, shared, stream>>>(in, load, weights, bias, heads, planar, not_finite);
  });
}

cudaError_t unpack_output(const Tensor& in, const LoadTransform& load, const int* positions, int channels,
                          float* planar, int* not_finite, cudaStream_t stream) {
  if (load.first) return cudaErrorNotSupported;
  const dim3 grid(blocks_for(in.voxels(), kThreads), unsigned(in.n));
  return with_type(in.type, [&](auto t) {
    unpack_kernel<decltype(t)>
        <<<grid, kThreads, 0, stream>>>(in, load, positions, channels, planar, not_finite);
  });
}

}  // namespace isoline::cuda
