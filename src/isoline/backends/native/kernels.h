// The vector kernels of the native engine, one table per instruction set and storage type.
//
// Layout: an activation is [channel block of 16][z][y][x][16 lanes], stored as float32 or bfloat16 ("E"
// below). Lanes beyond the last channel hold zero. Everything between load and store is float32; the matrix
// products multiply E by E and add up in float32.
//
// The files that implement a table are compiled for one instruction set and must not instantiate anything
// with external linkage (the linker could hand it to code that runs on a lesser processor): this header and
// kernels_impl.h use plain structs, intrinsics and internal linkage only.
#pragma once

#include <cstdint>

namespace isoline::native {

constexpr int kLanes = 16;

// Sixteen channels of an activation, to be normalised and rectified while they are read:
// y = x * scale + shift; max(y, slope * y), slope in [0, 1]. scale, shift: 16 floats each.
struct Source {
  const void* data = nullptr;  // E [z][y][x][16]
  const float* scale = nullptr;
  const float* shift = nullptr;
  float slope = 1;
};

// Winograd variants, by what they do along each axis [z, y, x]:
//   1: a kernel of 1;  2 and 4: a kernel of 3, F(2,3) and F(4,3);
//   -2: a kernel of 3 with stride 2. The even inputs meet one tap only and need no transform, the odd ones
//   meet two taps: F(2,2). Two outputs take 5 products instead of 6.
enum WinogradKind {
  kWinograd444,
  kWinograd244,
  kWinograd222,
  kWinograd144,
  kWinograd122,
  kWinogradStride222,
  kWinogradStride122,
  kWinogradKinds
};
constexpr int kWinogradAxis[kWinogradKinds][3] = {{4, 4, 4}, {2, 4, 4},    {2, 2, 2},  {1, 4, 4},
                                                  {1, 2, 2}, {-2, -2, -2}, {1, -2, -2}};
// Per tile and axis: products (and inputs, which are as many), outputs, stride, inputs before the first
// output.
constexpr int winograd_points_1d(int axis) {
  return axis == 1 ? 1 : axis == -2 ? 5 : axis + 2;
}
constexpr int winograd_tile(int axis) {
  return axis == -2 ? 2 : axis;
}
constexpr int winograd_stride(int axis) {
  return axis == -2 ? 2 : 1;
}
constexpr int winograd_lead(int axis) {
  return axis == 1 ? 0 : 1;
}
constexpr int winograd_points(int kind) {
  return winograd_points_1d(kWinogradAxis[kind][0]) * winograd_points_1d(kWinogradAxis[kind][1]) *
         winograd_points_1d(kWinogradAxis[kind][2]);
}
// F(4,3) interpolates at 0, +-3/4, +-3/2 and infinity: all transforms are exact in binary, and the error is
// half of that of the customary 0, +-1, +-2 (measured on a trained network, float32: 2.6e-7 against 6.2e-7
// relative RMS of the logits; direct convolution: 2.0e-7).
constexpr double kPointA = 0.75, kPointB = 1.5;

struct Grid {
  int64_t size[3];   // voxels [z, y, x] of the tensor at hand
  int64_t tiles[3];  // Winograd tiles [z, y, x]
};

// A box of voxels [z, y, x] that may reach outside of the grid, where it reads zero (padding).
struct Patch {
  int64_t begin[3];
  int64_t extent[3];
};

struct KernelTable {
  const char* name;
  int element_bytes;  // of E
  // Tiles [t0, t1) of 16 channels, transformed: v[p * point_stride + (t - t0) * 16 + lane], E.
  void (*winograd_input[kWinogradKinds])(const Source& in, const Grid& grid, int64_t t0, int64_t t1, void* v,
                                         int64_t point_stride);
  // The inverse for 16 output channels: m as v above but float32; out E [z][y][x][16]. bias: 16 floats or
  // null. stats, unless null: 16 sums then 16 sums of squares are added to it. stream: a hint that `out` is
  // larger than the caches, so that stores need not read what they overwrite.
  void (*winograd_output[kWinogradKinds])(const float* m, int64_t point_stride, const Grid& grid, int64_t t0,
                                          int64_t t1, const float* bias, void* out, bool stream,
                                          double* stats);
  // c[i * c_row + v * c_vec + lane] (+)= sum over o < offset_count, k < k_per_offset of
  //   a[offsets[o] + i * a_row + k] * b[o * k_per_offset + k][v][lane]
  // for rows i < rows and v < vecs (1 or 2). E products: b comes in pairs of k, [k / 2][v][lane][k % 2],
  // where E is bfloat16 (k_per_offset even).
  void (*multiply)(const void* a, int64_t a_row, const int64_t* offsets, int64_t offset_count,
                   int64_t k_per_offset, const void* b, float* c, int64_t c_row, int64_t c_vec, int64_t rows,
                   int vecs, bool accumulate);
  // The same with float32 operands whatever E is.
  void (*multiply_f32)(const void* a, int64_t a_row, const int64_t* offsets, int64_t offset_count,
                       int64_t k_per_offset, const void* b, float* c, int64_t c_row, int64_t c_vec,
                       int64_t rows, int vecs, bool accumulate);
  // A box of 16 channels, activated, as E [extent][16].
  void (*load_patch)(const Source& in, const Grid& grid, const Patch& patch, void* to);
  // acc [y][x][16] (rows acc_row apart, voxels 16 apart) to out E; strides in elements. bias, stats as above.
  void (*store_plane)(const float* acc, int64_t acc_row, int64_t ny, int64_t nx, const float* bias, void* out,
                      int64_t out_row, int64_t out_voxel, bool stream, double* stats);
  // voxels x 16 activated values as float32.
  void (*load_voxels)(const Source& in, int64_t first, int64_t count, float* to);
  // voxels x 16 float32 values to E.
  void (*store_voxels)(const float* from, int64_t count, void* to);
};

// Null where the compiler cannot produce it (not x86-64). The caller checks the processor.
const KernelTable* avx2_table();
const KernelTable* avx512_table();
const KernelTable* avx512_bf16_table();

}  // namespace isoline::native
