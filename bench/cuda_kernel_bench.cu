// Convolution kernels of backend `cuda`: correctness against a naive convolution on the device, then the time
// of every layer of a full net (1 -> 4 channels, features 32 64 128 256 320 320, patch 128^3) beside its
// floor.
//
//   cuda_kernel_bench            everything, a table and one line of JSON per layer
//   cuda_kernel_bench --small    correctness on small sizes only (also for compute-sanitizer)
//   cuda_kernel_bench --planes   the same of Hopper's kernels of planes.cuh, more boxes than processors
//   cuda_kernel_bench --time     times only
//   cuda_kernel_bench --half     without float32
//   cuda_kernel_bench --choices N  fp16, batch N: times of every kernel and tiling with the rule's bits
//   cuda_kernel_bench --hopper N  fp16, batch N: times of the rule's kernel and of all of Hopper's
//   cuda_kernel_bench --layer N  times of one layer only, once (for a profiler)
//
// The floor of a layer is the larger of FLOP / 790 TFLOP/s (TF32: 395, float32: 60) and bytes / 3.0 TB/s
// (H100; inputs and weights read once, outputs written once). Exit code 1 if any check fails.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "isoline/backends/cuda/kernels.h"
#include "isoline/backends/cuda/pack.h"
#include "isoline/backends/cuda/tuning.h"

using namespace isoline::cuda;

namespace {

#define CHECK(call)                                                                                        \
  do {                                                                                                     \
    const cudaError_t check_error = (call);                                                                \
    if (check_error != cudaSuccess) {                                                                      \
      std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(check_error)); \
      std::exit(2);                                                                                        \
    }                                                                                                      \
  } while (0)

__host__ __device__ inline float hash_uniform(uint64_t i, uint32_t seed) {
  uint64_t h = (i + 1) * 0x9E3779B97F4A7C15ull ^ (uint64_t(seed) << 32 | seed);
  h ^= h >> 31;
  h *= 0xBF58476D1CE4E5B9ull;
  h ^= h >> 29;
  h *= 0x94D049BB133111EBull;
  h ^= h >> 32;
  return float(h >> 40) * (2.0f / 16777216.0f) - 1.0f;
}

__host__ __device__ bool is_float(DataType type) {
  return type == DataType::kFloat32 || type == DataType::kTensorFloat32;
}
// 10 bits after the point, ties away from zero; finite values.
__host__ __device__ float to_tf32(float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  bits = (bits + 0x1000u) & ~0x1fffu;
  memcpy(&v, &bits, 4);
  return v;
}

__device__ float get(const void* data, DataType type, int64_t i) {
  if (is_float(type)) return static_cast<const float*>(data)[i];
  if (type == DataType::kFloat16) return __half2float(static_cast<const __half*>(data)[i]);
  return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
}
__device__ float rounded(DataType type, float v) {
  if (is_float(type)) return v;
  if (type == DataType::kFloat16) return __half2float(__float2half_rn(v));
  return __bfloat162float(__float2bfloat16_rn(v));
}

__global__ void fill(void* data, DataType type, int64_t count, uint32_t seed) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;
       i += int64_t(gridDim.x) * blockDim.x) {
    const float v = hash_uniform(uint64_t(i), seed);
    if (is_float(type)) static_cast<float*>(data)[i] = v;
    if (type == DataType::kFloat16) static_cast<__half*>(data)[i] = __float2half_rn(v);
    if (type == DataType::kBFloat16) static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(v);
  }
}

__device__ int64_t voxels_of(const Tensor& t) {
  return int64_t(t.z) * t.y * t.x;
}

// One thread per output element; weight [o, i, taps] already rounded.
__global__ void naive(Tensor in, LoadTransform load, Tensor out, ConvShape s, const float* weight,
                      const float* bias, float* result) {
  const int64_t id = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (id >= int64_t(out.n) * voxels_of(out) * out.c) return;
  const int c = int(id % out.c);
  int64_t v = id / out.c;
  const int x = int(v % out.x), y = int(v / out.x % out.y), z = int(v / out.x / out.y % out.z);
  const int n = int(v / voxels_of(out));
  double sum = bias ? bias[c] : 0;
  for (int kz = 0; kz < s.kernel[0]; ++kz)
    for (int ky = 0; ky < s.kernel[1]; ++ky)
      for (int kx = 0; kx < s.kernel[2]; ++kx) {
        const int iz = z * s.stride[0] + kz - s.kernel[0] / 2, iy = y * s.stride[1] + ky - s.kernel[1] / 2,
                  ix = x * s.stride[2] + kx - s.kernel[2] / 2;
        if (iz < 0 || iz >= in.z || iy < 0 || iy >= in.y || ix < 0 || ix >= in.x) continue;
        for (int i = 0; i < in.c; ++i) {
          float value =
              get(in.data, in.type, (((int64_t(n) * in.z + iz) * in.y + iy) * in.x + ix) * in.pitch + i);
          if (load.scale_shift && i >= load.first) {
            const float* const by =
                load.scale_shift + (int64_t(n) * (in.c - load.first) + i - load.first) * 2;
            value = fmaf(value, by[0], by[1]);
            value = rounded(in.type, value);
            if (value <= 0) value = rounded(in.type, rounded(in.type, load.slope) * value);
          }
          const int taps = s.kernel[0] * s.kernel[1] * s.kernel[2];
          if (in.type == DataType::kTensorFloat32) value = to_tf32(value);
          sum += double(value) *
                 weight[(int64_t(c) * in.c + i) * taps + (kz * s.kernel[1] + ky) * s.kernel[2] + kx];
        }
      }
  result[id] = float(sum);
}

__global__ void to_planar(Tensor in, float* planar) {
  const int64_t count = int64_t(in.n) * in.c * voxels_of(in);
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;
       i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t v = i % voxels_of(in), c = i / voxels_of(in) % in.c, n = i / voxels_of(in) / in.c;
    planar[i] = get(in.data, in.type, (n * voxels_of(in) + v) * in.pitch + c);
  }
}

// result: [n, voxels, c] of the naive convolution; got: what conv() wrote. errors: sum of squares of
// differences, sum of squares, largest difference (as bits: not negative), elements that are not finite.
__global__ void compare(Tensor out, const float* result, double* errors, unsigned* worst,
                        unsigned long long* bad) {
  const int64_t count = int64_t(out.n) * voxels_of(out) * out.c;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;
       i += int64_t(gridDim.x) * blockDim.x) {
    const float got = get(out.data, out.type, i / out.c * out.pitch + i % out.c);
    const float difference = fabsf(got - result[i]);
    if (!isfinite(got)) {
      atomicAdd(bad, 1ull);
      continue;
    }
    atomicAdd(errors, double(difference) * difference);
    atomicAdd(errors + 1, double(result[i]) * result[i]);
    atomicMax(worst, __float_as_uint(difference));
    atomicMax(worst + 1, __float_as_uint(fabsf(result[i])));
  }
}

// Elements outside the slice must keep the poison.
__global__ void untouched(Tensor out, int64_t before, int64_t pitch_elements, unsigned long long* bad) {
  const int64_t count = int64_t(out.n) * voxels_of(out) * pitch_elements;
  const int size = is_float(out.type) ? 4 : 2;
  const char* base = static_cast<const char*>(out.data) - before * size;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;
       i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t c = i % pitch_elements;
    if (c >= before && c < before + out.c) continue;
    for (int b = 0; b < size; ++b)
      if (static_cast<unsigned char>(base[i * size + b]) != 0xFF) atomicAdd(bad, 1ull);
  }
}

__global__ void statistics_of(Tensor out, const float* result, const float* partial, int blocks,
                              float* worst) {
  const int n = blockIdx.y, c = blockIdx.x;
  if (threadIdx.x) return;
  double sum = 0, squares = 0, got = 0, got_squares = 0, absolute = 0;
  for (int64_t v = 0; v < voxels_of(out); ++v) {
    const double r = result[(n * voxels_of(out) + v) * out.c + c];
    sum += r, squares += r * r, absolute += fabs(r);
  }
  for (int b = 0; b < blocks; ++b) {
    got += partial[((int64_t(n) * blocks + b) * out.c + c) * 2];
    got_squares += partial[((int64_t(n) * blocks + b) * out.c + c) * 2 + 1];
  }
  const float a = float(fabs(got - sum) / (absolute + 1e-20)),
              b = float(fabs(got_squares - squares) / (squares + 1e-20));
  float& w = worst[n * out.c + c];
  w = a > b ? a : b;
  if (!(a == a) || !(b == b)) w = INFINITY;
}

int size_of(DataType type) {
  return is_float(type) ? 4 : 2;
}
const char* name_of(DataType type) {
  return type == DataType::kFloat32         ? "fp32"
         : type == DataType::kTensorFloat32 ? "tf32"
         : type == DataType::kFloat16       ? "fp16"
                                            : "bf16";
}

template <typename T>
T* device(size_t count) {
  void* p = nullptr;
  CHECK(cudaMalloc(&p, std::max<size_t>(count * sizeof(T), 16)));
  return static_cast<T*>(p);
}

int candidates_checked = 0;

struct Case {
  int n, z, y, x, in_c, out_c;
  ConvShape shape;
  int in_extra = 0, out_before = 0, out_after = 0;  // channels of the wider tensors
  bool load = true, bias = true, statistics = true;
  float slope = 0.01f;
  int first = 0;        // channel that is transformed
  bool planar = false;  // conv_planar() instead of conv(); in_extra brings the pitch to a multiple of 8
};

std::vector<float> make_weights(DataType type, int out_c, int in_c, int taps) {
  std::vector<float> w(size_t(out_c) * size_t(in_c) * size_t(taps));
  const float scale = std::sqrt(3.0f / (float(in_c) * float(taps)));
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = hash_uniform(i, 77) * scale;
    if (type == DataType::kTensorFloat32) w[i] = to_tf32(w[i]);
    if (type == DataType::kFloat16) w[i] = __half2float(__float2half_rn(w[i]));
    if (type == DataType::kBFloat16) w[i] = __bfloat162float(__float2bfloat16_rn(w[i]));
  }
  return w;
}

// bits: what came out, statistics included. quiet: only failures are printed.
bool check(const Case& c, DataType type, bool quiet = false, std::vector<char>* bits = nullptr) {
  Tensor in{nullptr, type, c.n, c.z, c.y, c.x, c.in_c, c.in_c + c.in_extra};
  Tensor out{nullptr,
             type,
             c.n,
             (c.z - 1) / c.shape.stride[0] + 1,
             (c.y - 1) / c.shape.stride[1] + 1,
             (c.x - 1) / c.shape.stride[2] + 1,
             c.out_c,
             c.out_before + c.out_c + c.out_after};
  const int taps = c.shape.kernel[0] * c.shape.kernel[1] * c.shape.kernel[2];
  const size_t in_count = size_t(c.n) * size_t(in.voxels()) * size_t(in.pitch);
  const size_t out_count = size_t(c.n) * size_t(out.voxels()) * size_t(out.pitch);
  const size_t result_count = size_t(c.n) * size_t(out.voxels()) * size_t(out.c);
  char* in_data = device<char>(in_count * size_t(size_of(type)));
  char* out_data = device<char>(out_count * size_t(size_of(type)));
  fill<<<512, 256>>>(in_data, type, int64_t(in_count), 5);
  CHECK(cudaGetLastError());
  in.data = in_data + size_t(c.in_extra / 2 / 8 * 8) * size_t(size_of(type));
  out.data = out_data + size_t(c.out_before) * size_t(size_of(type));
  CHECK(cudaMemset(out_data, 0xFF, out_count * size_t(size_of(type))));
  const std::vector<float> weight = make_weights(type, c.out_c, c.in_c, taps);
  PlanarInput planar{device<float>(in_count), c.in_c};
  ConvNeeds needs;
  const cudaError_t refusal =
      c.planar ? conv_planar_needs(planar, out, c.shape, &needs) : conv_needs(in, out, c.shape, &needs);
  const std::vector<std::byte> packed =
      c.planar
          ? pack_planar_conv_weights(type, weight.data(), c.out_c, c.in_c, c.shape)
          : pack_conv_weights(type, weight.data(), c.out_c, c.in_c, c.shape, c.in_c, nullptr, needs.layout);
  if (c.planar) to_planar<<<256, 256>>>(in, const_cast<float*>(planar.data));
  float* weight_device = device<float>(weight.size());
  std::byte* packed_device = device<std::byte>(packed.size());
  CHECK(cudaMemcpy(weight_device, weight.data(), weight.size() * 4, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(packed_device, packed.data(), packed.size(), cudaMemcpyHostToDevice));
  float* affine = device<float>(size_t(c.n * c.in_c * 2));
  fill<<<64, 256>>>(affine, DataType::kFloat32, c.n * c.in_c * 2, 9);
  float* bias = device<float>(size_t(c.out_c));
  fill<<<64, 256>>>(bias, DataType::kFloat32, c.out_c, 11);
  char what[200];
  std::snprintf(what, sizeof what, "%s%s n%d %dx%dx%d %d->%d k%d%d%d s%d%d%d%s%s%s", name_of(type),
                c.planar ? " planar" : "", c.n, c.z, c.y, c.x, c.in_c, c.out_c, c.shape.kernel[0],
                c.shape.kernel[1], c.shape.kernel[2], c.shape.stride[0], c.shape.stride[1], c.shape.stride[2],
                c.first  ? " load half"
                : c.load ? " load"
                         : "",
                c.bias ? " bias" : "", c.in_extra + c.out_before + c.out_after ? " slices" : "");
  if (refusal == cudaErrorNotSupported) {
    std::printf("skip  %s: does not fit shared memory\n", what);
    return true;
  }
  CHECK(refusal);
  float* partial = device<float>(size_t(c.n) * size_t(needs.blocks) * size_t(c.out_c) * 2);
  CHECK(cudaMemset(partial, 0xFF, size_t(c.n) * size_t(needs.blocks) * size_t(c.out_c) * 8));
  char* workspace = needs.workspace_bytes ? device<char>(needs.workspace_bytes) : nullptr;
  if (workspace) CHECK(cudaMemset(workspace, 0xFF, needs.workspace_bytes));
  LoadTransform load{c.load ? affine : nullptr, c.slope, c.first};
  Statistics statistics{c.statistics ? partial : nullptr, needs.blocks};
  const auto launch = [&] {
    const ConvWeights weights{packed_device, c.bias ? bias : nullptr};
    CHECK(c.planar ? conv_planar(planar, out, c.shape, weights, statistics, nullptr)
                   : conv(in, load, out, c.shape, weights, statistics, workspace, nullptr));
  };
  launch();
  CHECK(cudaDeviceSynchronize());
  float* result = device<float>(result_count);
  naive<<<unsigned((result_count + 127) / 128), 128>>>(in, load, out, c.shape, weight_device,
                                                       c.bias ? bias : nullptr, result);
  CHECK(cudaGetLastError());
  double* errors = device<double>(2);
  unsigned* worst = device<unsigned>(2);
  unsigned long long* bad = device<unsigned long long>(2);
  float* worst_statistics = device<float>(size_t(c.n * c.out_c));
  CHECK(cudaMemset(errors, 0, 16));
  CHECK(cudaMemset(worst, 0, 8));
  CHECK(cudaMemset(bad, 0, 16));
  compare<<<256, 256>>>(out, result, errors, worst, bad);
  untouched<<<256, 256>>>(out, c.out_before, out.pitch, bad + 1);
  if (c.statistics)
    statistics_of<<<dim3(unsigned(c.out_c), unsigned(c.n)), 32>>>(out, result, partial, needs.blocks,
                                                                  worst_statistics);
  CHECK(cudaGetLastError());
  CHECK(cudaDeviceSynchronize());
  // The same again must give the same bits.
  std::vector<char> once(out_count * size_t(size_of(type))), twice(once.size());
  CHECK(cudaMemcpy(once.data(), out_data, once.size(), cudaMemcpyDeviceToHost));
  launch();
  CHECK(cudaMemcpy(twice.data(), out_data, once.size(), cudaMemcpyDeviceToHost));
  const bool same = once == twice;
  if (bits) {
    *bits = once;
    if (c.statistics) {
      const size_t at = bits->size(), more = size_t(c.n) * size_t(needs.blocks) * size_t(c.out_c) * 8;
      bits->resize(at + more);
      CHECK(cudaMemcpy(bits->data() + at, partial, more, cudaMemcpyDeviceToHost));
    }
  }
  double e[2];
  float w[2];
  unsigned long long b[2];
  CHECK(cudaMemcpy(e, errors, 16, cudaMemcpyDeviceToHost));
  CHECK(cudaMemcpy(w, worst, 8, cudaMemcpyDeviceToHost));
  CHECK(cudaMemcpy(b, bad, 16, cudaMemcpyDeviceToHost));
  float worst_of_statistics = 0;
  if (c.statistics) {
    std::vector<float> all(size_t(c.n * c.out_c));
    CHECK(cudaMemcpy(all.data(), worst_statistics, all.size() * 4, cudaMemcpyDeviceToHost));
    worst_of_statistics = *std::max_element(all.begin(), all.end());
  }
  const double relative = std::sqrt(e[0] / std::max(e[1], 1e-30)), largest = w[0] / std::max(w[1], 1e-30f);
  // TF32: factors are rounded here too; what is left are sums, which tensor cores cut off, and ties of
  // factors.
  const double limit = type == DataType::kFloat32         ? 2e-6
                       : type == DataType::kTensorFloat32 ? 2e-5
                       : type == DataType::kFloat16       ? 6e-4
                                                          : 4e-3;
  const bool ok = relative < limit && largest < 4 * limit && b[0] == 0 && b[1] == 0 && same &&
                  worst_of_statistics < 1e-4f;
  if (!ok || !quiet)
    std::printf("%s %s: relative %.2e, largest %.2e, statistics %.1e, not finite %llu, outside %llu%s\n",
                ok ? "ok   " : "FAIL ", what, relative, largest, double(worst_of_statistics), b[0], b[1],
                same ? "" : ", NOT DETERMINISTIC");
  std::fflush(stdout);
  for (void* p :
       {static_cast<void*>(in_data), static_cast<void*>(const_cast<float*>(planar.data)),
        static_cast<void*>(out_data), static_cast<void*>(weight_device), static_cast<void*>(packed_device),
        static_cast<void*>(affine), static_cast<void*>(bias), static_cast<void*>(partial),
        static_cast<void*>(workspace), static_cast<void*>(result), static_cast<void*>(errors),
        static_cast<void*>(worst), static_cast<void*>(bad), static_cast<void*>(worst_statistics)}) {
    CHECK(cudaFree(p));
  }
  return ok;
}

// Every kernel and tiling that could run a case, and whether those that are said to give the same bits do.
int check_candidates(Case c, DataType type) {
  const Tensor in{nullptr, type, c.n, c.z, c.y, c.x, c.in_c, c.in_c + c.in_extra};
  const Tensor out{nullptr,
                   type,
                   c.n,
                   (c.z - 1) / c.shape.stride[0] + 1,
                   (c.y - 1) / c.shape.stride[1] + 1,
                   (c.x - 1) / c.shape.stride[2] + 1,
                   c.out_c,
                   c.out_before + c.out_c + c.out_after};
  int failed = 0;
  std::vector<char> want, got;
  for (const bool same_bits : {true, false}) {
    bool first = true;
    for (const ConvChoice& choice : conv_candidates(in, out, c.shape, same_bits)) {
      c.shape.choice = choice;
      bool ok = check(c, type, true, first ? &want : &got);
      if (same_bits && !first && want != got) ok = false;
      if (!ok)
        std::printf("FAIL  %s n%d %dx%dx%d %d->%d on %s\n", name_of(type), c.n, c.z, c.y, c.x, c.in_c,
                    c.out_c, to_string(choice).c_str());
      failed += !ok;
      ++candidates_checked;
      first = false;
    }
    c.shape.choice = {};
  }
  return failed;
}

struct Layer {
  const char* name;
  int in_c, out_c, size, stride;  // size of the input
  int true_in_c;
};
const Layer kLayers[] = {
    {"enc0.0", 8, 32, 128, 1, 1},     {"enc0.1", 32, 32, 128, 1, 32},   {"enc1.0", 32, 64, 128, 2, 32},
    {"enc1.1", 64, 64, 64, 1, 64},    {"enc2.0", 64, 128, 64, 2, 64},   {"enc2.1", 128, 128, 32, 1, 128},
    {"enc3.0", 128, 256, 32, 2, 128}, {"enc3.1", 256, 256, 16, 1, 256}, {"enc4.0", 256, 320, 16, 2, 256},
    {"enc4.1", 320, 320, 8, 1, 320},  {"enc5.0", 320, 320, 8, 2, 320},  {"enc5.1", 320, 320, 4, 1, 320},
    {"dec4.0", 640, 320, 8, 1, 640},  {"dec4.1", 320, 320, 8, 1, 320},  {"dec3.0", 512, 256, 16, 1, 512},
    {"dec3.1", 256, 256, 16, 1, 256}, {"dec2.0", 256, 128, 32, 1, 256}, {"dec2.1", 128, 128, 32, 1, 128},
    {"dec1.0", 128, 64, 64, 1, 128},  {"dec1.1", 64, 64, 64, 1, 64},    {"dec0.0", 64, 32, 128, 1, 64},
    {"dec0.1", 32, 32, 128, 1, 32},
};

double time_layer(const Layer& l, DataType type, int n, bool transform, int repetitions, double* floor_ms,
                  const ConvChoice& choice = {}) {
  const ConvShape shape{{3, 3, 3}, {l.stride, l.stride, l.stride}, choice};
  const bool planar = l.true_in_c == 1 && !is_float(type);  // then `ins` hold float32
  Tensor in{nullptr, type, n, l.size, l.size, l.size, planar ? 2 : l.in_c, planar ? 2 : l.in_c};
  const int o = l.size / l.stride;
  Tensor out{nullptr, type, n, o, o, o, l.out_c, l.out_c};
  const size_t bytes = size_t(size_of(type));
  const size_t in_bytes = size_t(n) * size_t(in.voxels()) * size_t(in.pitch) * bytes;
  const size_t out_bytes = size_t(n) * size_t(out.voxels()) * size_t(out.pitch) * bytes;
  const std::vector<float> weight = make_weights(type, l.out_c, l.in_c, 27);
  ConvNeeds needs;
  CHECK(planar ? conv_planar_needs({nullptr, 1}, out, shape, &needs) : conv_needs(in, out, shape, &needs));
  const std::vector<std::byte> packed =
      planar ? pack_planar_conv_weights(type, weight.data(), l.out_c, 1, shape)
             : pack_conv_weights(type, weight.data(), l.out_c, l.in_c, shape, l.in_c, nullptr, needs.layout);
  const int sets =
      int(std::clamp<size_t>((size_t(200) << 20) / (in_bytes + out_bytes + packed.size()) + 1, 2, 24));
  std::vector<char*> ins, outs;
  std::vector<std::byte*> weights;
  for (int i = 0; i < sets; ++i) {
    ins.push_back(device<char>(in_bytes));
    outs.push_back(device<char>(out_bytes));
    weights.push_back(device<std::byte>(packed.size()));
    const DataType in_type = planar ? DataType::kFloat32 : type;
    fill<<<1024, 256>>>(ins.back(), in_type, int64_t(in_bytes) / size_of(in_type), uint32_t(i));
    CHECK(cudaMemcpy(weights.back(), packed.data(), packed.size(), cudaMemcpyHostToDevice));
  }
  float* affine = device<float>(size_t(n * l.in_c * 2));
  fill<<<64, 256>>>(affine, DataType::kFloat32, n * l.in_c * 2, 9);
  float* partial = device<float>(size_t(n) * size_t(needs.blocks) * size_t(l.out_c) * 2);
  char* workspace = device<char>(needs.workspace_bytes);
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  const auto once = [&](int i) {
    in.data = ins[size_t(i)];
    out.data = outs[size_t(i)];
    if (planar) {
      CHECK(conv_planar({static_cast<const float*>(in.data), 1}, out, shape, {weights[size_t(i)], nullptr},
                        {partial, needs.blocks}, stream));
      return;
    }
    CHECK(conv(in, {transform && l.true_in_c > 1 ? affine : nullptr, 0.01f}, out, shape,
               {weights[size_t(i)], nullptr}, {partial, needs.blocks}, workspace, stream));
  };
  for (int i = 0; i < sets; ++i) once(i);
  CHECK(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int i = 0; i < sets; ++i) once(i);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t from, to;
  CHECK(cudaEventCreate(&from));
  CHECK(cudaEventCreate(&to));
  std::vector<float> times;
  CHECK(cudaGraphLaunch(executable, stream));
  for (int r = 0; r < repetitions; ++r) {
    CHECK(cudaEventRecord(from, stream));
    CHECK(cudaGraphLaunch(executable, stream));
    CHECK(cudaEventRecord(to, stream));
    CHECK(cudaEventSynchronize(to));
    float ms = 0;
    CHECK(cudaEventElapsedTime(&ms, from, to));
    times.push_back(ms / float(sets));
  }
  std::sort(times.begin(), times.end());
  const double flop = 2.0 * 27 * l.true_in_c * l.out_c * double(n) * double(out.voxels());
  const double real_bytes = double(in_bytes) * (planar ? 1 : double(l.true_in_c) / l.in_c) +
                            double(out_bytes) + 27.0 * l.true_in_c * l.out_c * double(bytes);
  const double rate = type == DataType::kFloat32 ? 60e12 : type == DataType::kTensorFloat32 ? 395e12 : 790e12;
  *floor_ms = std::max(flop / rate, real_bytes / 3.0e12) * 1e3;
  CHECK(cudaGraphExecDestroy(executable));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaStreamDestroy(stream));
  for (char* p : ins) CHECK(cudaFree(p));
  for (char* p : outs) CHECK(cudaFree(p));
  for (std::byte* p : weights) CHECK(cudaFree(p));
  CHECK(cudaFree(affine));
  CHECK(cudaFree(partial));
  CHECK(cudaFree(workspace));
  return times[times.size() / 2];
}

void time_net(DataType type, int n, bool transform, int repetitions) {
  std::printf("\n| layer (%s, batch %d%s) | ms | floor | ratio | TFLOP/s |\n|---|---|---|---|---|\n",
              name_of(type), n, transform ? ", normalise on load" : "");
  double sum = 0, floors = 0;
  for (const Layer& l : kLayers) {
    double floor_ms = 0;
    const double ms = time_layer(l, type, n, transform, repetitions, &floor_ms);
    const int o = l.size / l.stride;
    const double flop = 2.0 * 27 * l.true_in_c * l.out_c * double(n) * o * o * o;
    std::printf("| %s %d->%d @%d/%d | %.4f | %.4f | %.2f | %.1f |\n", l.name, l.true_in_c, l.out_c, l.size,
                l.stride, ms, floor_ms, ms / floor_ms, flop / ms * 1e-9);
    std::fflush(stdout);
    sum += ms;
    floors += floor_ms;
  }
  std::printf("| sum | %.4f | %.4f | %.2f | |\n| per patch | %.4f | %.4f | | |\n", sum, floors, sum / floors,
              sum / n, floors / n);
  std::fflush(stdout);
}

void time_choices(int n, bool hopper) {
  for (const Layer& l : kLayers) {
    if (l.true_in_c == 1) continue;
    const int o = l.size / l.stride;
    const Tensor in{nullptr, DataType::kFloat16, n, l.size, l.size, l.size, l.in_c, l.in_c};
    const Tensor out{nullptr, DataType::kFloat16, n, o, o, o, l.out_c, l.out_c};
    const ConvShape shape{{3, 3, 3}, {l.stride, l.stride, l.stride}};
    std::printf("%s batch %d:", l.name, n);
    bool first = true;
    for (const ConvChoice& choice : conv_candidates(in, out, shape, !hopper)) {
      double floor_ms = 0;
      if (hopper && choice.kind == ConvKernelKind::kMma && !first) continue;
      first = false;
      const double ms = time_layer(l, DataType::kFloat16, n, true, 7, &floor_ms, choice);
      const double as_is = time_layer(l, DataType::kFloat16, n, false, 7, &floor_ms, choice);
      std::printf("  [%s] %.4f (as it is %.4f)", to_string(choice).c_str(), ms, as_is);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool small = false, only_time = false, half = false, planes = false;
  int only_layer = -1, choices = 0, hopper = 0;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--small")) small = true;
    if (!std::strcmp(argv[i], "--time")) only_time = true;
    if (!std::strcmp(argv[i], "--half")) half = true;
    if (!std::strcmp(argv[i], "--planes")) planes = true;
    if (!std::strcmp(argv[i], "--choices") && i + 1 < argc) choices = std::atoi(argv[++i]);
    if (!std::strcmp(argv[i], "--hopper") && i + 1 < argc) hopper = std::atoi(argv[++i]);
    if (!std::strcmp(argv[i], "--layer") && i + 1 < argc) only_layer = std::atoi(argv[++i]);
  }
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, %d processors, sm_%d%d\n", properties.name, properties.multiProcessorCount,
              properties.major, properties.minor);
  if (only_layer >= 0) {
    double floor_ms = 0;
    std::printf("%.4f ms\n", time_layer(kLayers[only_layer], DataType::kFloat16, 1, true, 1, &floor_ms));
    return 0;
  }
  if (planes) {
    const ConvShape one{{3, 3, 3}, {1, 1, 1}, {ConvKernelKind::kChannels}},
        two{{3, 3, 3}, {2, 2, 2}, {ConvKernelKind::kChannels}},
        march{{3, 3, 3}, {1, 1, 1}, {ConvKernelKind::kMarch}};
    int failed = 0;
    for (const Case& c : {Case{2, 24, 64, 64, 64, 64, one}, Case{1, 9, 35, 70, 24, 40, one, 8, 8, 8},
                          Case{1, 16, 64, 64, 72, 128, one}, Case{2, 36, 62, 130, 40, 64, two},
                          Case{3, 10, 128, 128, 40, 32, march}, Case{1, 9, 35, 70, 24, 24, march, 8, 8, 8},
                          Case{1, 40, 64, 64, 8, 32, march}}) {
      failed += !check(c, DataType::kFloat16);
    }
    return failed ? 1 : 0;
  }
  if (choices > 0) return time_choices(choices, false), 0;
  if (hopper > 0) return time_choices(hopper, true), 0;
  int failed = 0;
  if (!only_time) {
    const ConvShape k333{{3, 3, 3}, {1, 1, 1}}, k333s2{{3, 3, 3}, {2, 2, 2}}, k133{{1, 3, 3}, {1, 1, 1}},
        k133s122{{1, 3, 3}, {1, 2, 2}}, k111{}, k111s2{{1, 1, 1}, {2, 2, 2}};
    std::vector<Case> cases = {
        {1, 9, 11, 13, 8, 32, k333},
        {2, 9, 10, 17, 24, 40, k333, 8, 8, 16},
        {2, 7, 9, 11, 16, 64, k333s2, 0, 8, 0},
        {1, 8, 8, 8, 72, 136, k333s2},
        {1, 4, 4, 4, 64, 64, k333},
        {2, 5, 4, 3, 40, 48, k333, 16, 0, 8},
        {2, 1, 37, 21, 16, 32, k133},
        {1, 1, 40, 19, 32, 72, k133s122},
        {1, 3, 12, 10, 16, 24, k133, 0, 0, 0, false, false, false},
        {1, 3, 12, 10, 16, 24, k133s122},
        {1, 5, 9, 10, 24, 16, {{3, 3, 3}, {1, 2, 2}}},
        {1, 5, 9, 10, 24, 16, {{3, 3, 3}, {2, 2, 1}}},
        {1, 5, 9, 10, 24, 16, {{3, 3, 3}, {2, 1, 2}}},
        {1, 5, 9, 10, 24, 16, {{3, 1, 3}, {1, 1, 1}}},
        {2, 5, 9, 10, 24, 16, k111, 8, 8, 8},
        {1, 5, 9, 11, 24, 40, k111s2},
        {1, 6, 9, 10, 16, 32, {{5, 5, 5}, {1, 1, 1}}},
        {1, 6, 9, 10, 8, 8, {{7, 7, 7}, {1, 1, 1}}},
        {1, 6, 9, 10, 8, 8, {{7, 7, 7}, {2, 2, 2}}},
        {1, 6, 9, 10, 16, 8, {{3, 5, 1}, {2, 2, 2}}},
        {1, 1, 33, 35, 8, 8, {{1, 7, 7}, {1, 2, 2}}},
        {1, 1, 1, 1, 8, 8, k333},
        {1, 2, 3, 1, 8, 8, k333s2},
        {1, 24, 8, 8, 40, 24, k333, 8, 8, 8},
        {2, 8, 8, 9, 80, 104, k333, 8, 0, 8},
        {1, 9, 35, 17, 64, 32, k333, 8, 8, 8},
        {1, 13, 65, 18, 24, 72, k333s2, 8, 8, 8},
    };
    std::vector<Case> planar_cases = {
        {2, 9, 11, 13, 1, 32, k333, 7, 8, 8}, {1, 5, 9, 18, 2, 40, k333, 6},
        {1, 3, 8, 8, 3, 8, k133, 5},          {2, 1, 37, 21, 4, 64, k133, 4},
        {1, 6, 9, 5, 4, 16, k333, 4},         {1, 5, 6, 7, 1, 8, {{5, 5, 1}, {1, 1, 1}}, 7},
    };
    for (Case& c : planar_cases) c.planar = true, c.load = false;
    for (const Case& c : {Case{2, 8, 9, 10, 64, 32, k333}, Case{2, 9, 8, 11, 80, 72, k333},
                          Case{2, 5, 4, 3, 24, 40, k333}, Case{2, 9, 9, 9, 32, 64, k333s2}}) {
      cases.push_back(c);
      cases.back().first = c.in_c / 2 / 8 * 8;
    }
    cases[0].slope = 0;
    cases[1].slope = -0.5f;
    if (!small) {
      const std::vector<Case> larger = {
          {1, 40, 44, 37, 32, 32, k333},   {2, 33, 31, 29, 64, 64, k333},  {1, 31, 33, 30, 32, 64, k333s2},
          {1, 16, 16, 16, 256, 256, k333}, {2, 8, 8, 8, 640, 320, k333},   {1, 16, 16, 16, 128, 256, k333s2},
          {2, 4, 4, 4, 320, 320, k333},    {1, 1, 256, 250, 32, 32, k133}, {1, 20, 64, 56, 32, 32, k133},
          {1, 64, 24, 40, 48, 72, k333},
      };
      cases.insert(cases.end(), larger.begin(), larger.end());
    }
    for (const DataType type :
         {DataType::kFloat16, DataType::kBFloat16, DataType::kTensorFloat32, DataType::kFloat32}) {
      if (half && is_float(type)) continue;
      for (const Case& c : cases) {
        failed += !check(c, type);
        failed += check_candidates(c, type);
      }
      if (is_float(type)) continue;
      for (const Case& c : planar_cases) failed += !check(c, type);
    }
    std::printf("%d kernels and tilings for these cases checked\n", candidates_checked);
    std::printf("%s\n", failed ? "SOME CHECKS FAILED" : "all checks passed");
    std::fflush(stdout);
  }
  if (!small) {
    time_net(DataType::kFloat16, 1, true, 9);
    time_net(DataType::kFloat16, 2, true, 9);
    time_net(DataType::kFloat16, 1, false, 5);
    if (half) return failed ? 1 : 0;
    time_net(DataType::kTensorFloat32, 1, true, 5);
    time_net(DataType::kFloat32, 1, true, 3);
  }
  return failed ? 1 : 0;
}
