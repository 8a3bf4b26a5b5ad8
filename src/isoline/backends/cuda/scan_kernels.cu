// Compiled without fused multiply-adds (CMakeLists.txt): accumulation and export have the CPU rooms' bits.
#include "isoline/backends/cuda/scan_kernels.h"

namespace isoline::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kMaxGrid = 65535;

// Planes and rows beyond a grid's limit come in further rounds of the same block.
template <class Functor>
__global__ void __launch_bounds__(kThreads) element_kernel(const __grid_constant__ Functor f, int planes, int rows,
                                                           int columns) {
  const int column = blockIdx.x * kThreads + threadIdx.x;
  if (column >= columns) return;
  for (int plane = blockIdx.z; plane < planes; plane += gridDim.z)
    for (int row = blockIdx.y; row < rows; row += gridDim.y) f(plane, row, column);
}

}  // namespace

template <class Functor>
cudaError_t for_each_element(const Functor& f, int64_t planes, int64_t rows, int64_t columns, cudaStream_t stream) {
  if (planes <= 0 || rows <= 0 || columns <= 0) return cudaSuccess;
  const dim3 grid(unsigned((columns + kThreads - 1) / kThreads), unsigned(rows < kMaxGrid ? rows : kMaxGrid),
                  unsigned(planes < kMaxGrid ? planes : kMaxGrid));
  element_kernel<<<grid, kThreads, 0, stream>>>(f, int(planes), int(rows), int(columns));
  return cudaGetLastError();
}

#define ISOLINE_INSTANTIATE(...) \
  template cudaError_t for_each_element(const __VA_ARGS__&, int64_t, int64_t, int64_t, cudaStream_t)
ISOLINE_INSTANTIATE(NormalizeSlices<int16_t>);
ISOLINE_INSTANTIATE(NormalizeSlices<float>);
ISOLINE_INSTANTIATE(FilterLines);
ISOLINE_INSTANTIATE(CombineLines);
ISOLINE_INSTANTIATE(JoinRanges);
ISOLINE_INSTANTIATE(ClipValues);
ISOLINE_INSTANTIATE(CutTiles);
ISOLINE_INSTANTIATE(AddTile);
ISOLINE_INSTANTIATE(DividePlanes);
ISOLINE_INSTANTIATE(AddFold);
ISOLINE_INSTANTIATE(ExportLabels<uint8_t>);
ISOLINE_INSTANTIATE(ExportLabels<uint16_t>);

}  // namespace isoline::cuda
