#include "isoline/backends/cuda/conv_naive.h"
#include "isoline/backends/cuda/elements.cuh"

namespace isoline::cuda {
namespace {

constexpr int kBlockVoxels = 64, kThreads = 256;

struct Arguments {
  const void* in;
  void* out;
  const float* weights;
  const float* bias;
  const float* scale_shift;
  float* partial;
  float slope;
  int first;  // that is transformed
  int iz, iy, ix, ic, ipitch;
  int oz, oy, ox, oc, opitch;
  int kernel[3], stride[3];
};

// A thread computes one output channel for every voxel of its row of the block, four voxels at a time.
template <class T>
__global__ void __launch_bounds__(kThreads) naive_kernel(Arguments a) {
  __shared__ float2 sums[kThreads];
  const int n = blockIdx.y, ct = threadIdx.x, row = threadIdx.y, rows = blockDim.y;
  const int64_t in_voxels = int64_t(a.iz) * a.iy * a.ix, out_voxels = int64_t(a.oz) * a.oy * a.ox;
  const T* in = static_cast<const T*>(a.in) + n * in_voxels * a.ipitch;
  T* out = static_cast<T*>(a.out) + n * out_voxels * a.opitch;
  const float* affine = a.scale_shift ? a.scale_shift + int64_t(n) * (a.ic - a.first) * 2 : nullptr;
  const int64_t first = int64_t(blockIdx.x) * kBlockVoxels;
  for (int c0 = 0; c0 < a.oc; c0 += blockDim.x) {
    const int c = c0 + ct;
    float sum = 0, squares = 0;
    if (c < a.oc) {
      for (int v0 = row * 4; v0 < kBlockVoxels; v0 += rows * 4) {
        float acc[4] = {};
        int z[4], y[4], x[4];
        bool valid[4];
        for (int j = 0; j < 4; ++j) {
          const int64_t v = first + v0 + j;
          valid[j] = v < out_voxels;
          x[j] = int(v % a.ox) * a.stride[2] - a.kernel[2] / 2;
          y[j] = int(v / a.ox % a.oy) * a.stride[1] - a.kernel[1] / 2;
          z[j] = int(v / a.ox / a.oy) * a.stride[0] - a.kernel[0] / 2;
        }
        const float* w = a.weights + c;
        for (int kz = 0; kz < a.kernel[0]; ++kz)
          for (int ky = 0; ky < a.kernel[1]; ++ky)
            for (int kx = 0; kx < a.kernel[2]; ++kx) {
              const T* p[4];
              bool inside[4];
              for (int j = 0; j < 4; ++j) {
                const int zz = z[j] + kz, yy = y[j] + ky, xx = x[j] + kx;
                inside[j] = valid[j] && zz >= 0 && zz < a.iz && yy >= 0 && yy < a.iy && xx >= 0 && xx < a.ix;
                p[j] = in + (int64_t(zz) * a.iy * a.ix + int64_t(yy) * a.ix + xx) * a.ipitch;
              }
              for (int i = 0; i < a.ic; ++i, w += a.oc) {
                const float weight = *w;
                for (int j = 0; j < 4; ++j) {
                  if (!inside[j]) continue;
                  float v = to_float(p[j][i]);
                  if (affine && i >= a.first) {
                    const float* const by = affine + 2 * (i - a.first);
                    v = to_float(from_float<T>(leaky(v * by[0] + by[1], a.slope)));
                  }
                  acc[j] += v * weight;
                }
              }
            }
        for (int j = 0; j < 4; ++j) {
          if (!valid[j]) continue;
          const float v = acc[j] + (a.bias ? a.bias[c] : 0.0f);
          out[(first + v0 + j) * a.opitch + c] = from_float<T>(v);
          sum += v;
          squares += v * v;
        }
      }
    }
    if (a.partial) {
      __syncthreads();
      sums[row * blockDim.x + ct] = {sum, squares};
      __syncthreads();
      if (row == 0 && c < a.oc) {
        float2 total = sums[ct];
        for (int r = 1; r < rows; ++r) {
          total.x += sums[r * blockDim.x + ct].x;
          total.y += sums[r * blockDim.x + ct].y;
        }
        reinterpret_cast<float2*>(a.partial)[(int64_t(n) * gridDim.x + blockIdx.x) * a.oc + c] = total;
      }
    }
  }
}

}  // namespace

std::vector<float> pack_naive_weights(const float* weight, int out_channels, int in_channels,
                                      const ConvShape& shape, int tensor_channels, const int* positions) {
  const int taps = shape.kernel[0] * shape.kernel[1] * shape.kernel[2], oc = (out_channels + 7) / 8 * 8;
  std::vector<float> packed(size_t(taps) * size_t(tensor_channels) * size_t(oc), 0.0f);
  for (int o = 0; o < out_channels; ++o)
    for (int i = 0; i < in_channels; ++i)
      for (int t = 0; t < taps; ++t) {
        const int at = positions ? positions[i] : i;
        packed[(size_t(t) * size_t(tensor_channels) + size_t(at)) * size_t(oc) + size_t(o)] =
            weight[(size_t(o) * size_t(in_channels) + size_t(i)) * size_t(taps) + size_t(t)];
      }
  return packed;
}

int naive_conv_blocks(const Tensor& out) {
  return int((out.voxels() + kBlockVoxels - 1) / kBlockVoxels);
}

cudaError_t naive_conv(const Tensor& in, const LoadTransform& load, const Tensor& out, const ConvShape& shape,
                       const ConvWeights& weights, const Statistics& statistics, cudaStream_t stream) {
  Arguments a{};
  a.in = in.data;
  a.out = out.data;
  a.weights = static_cast<const float*>(weights.packed);
  a.bias = weights.bias;
  a.scale_shift = load.scale_shift;
  a.slope = load.slope;
  a.first = load.first;
  a.partial = statistics.partial;
  a.iz = in.z, a.iy = in.y, a.ix = in.x, a.ic = in.c, a.ipitch = in.pitch;
  a.oz = out.z, a.oy = out.y, a.ox = out.x, a.oc = out.c, a.opitch = out.pitch;
  for (int i = 0; i < 3; ++i) a.kernel[i] = shape.kernel[i], a.stride[i] = shape.stride[i];
  int columns = 8;
  while (columns < out.c && columns < kThreads / 4) columns *= 2;
  const dim3 threads(unsigned(columns), unsigned(kThreads / columns));
  const dim3 grid(unsigned(naive_conv_blocks(out)), unsigned(out.n));
  return with_type(in.type, [&](auto t) { naive_kernel<decltype(t)><<<grid, threads, 0, stream>>>(a); });
}

}  // namespace isoline::cuda
