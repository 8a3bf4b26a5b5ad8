// Segments a buffer in memory: segment_buffer MODEL_FOLDER. The buffer here is a bright ball in air.
#include <cstdio>

#include "isoline/backends/registry/registry.h"
#include "isoline/pipeline/segmenter.h"

int main(int argc, char** argv) {
  using namespace isoline;
  if (argc != 2) return std::fprintf(stderr, "usage: segment_buffer MODEL_FOLDER\n"), 2;
  Image scan;
  scan.channels = 1;
  scan.shape = {24, 40, 40};                   // z, y, x
  scan.geometry.spacing_mm = {3.0, 1.5, 1.5};  // z, y, x
  Buffer<int16_t> hounsfield(size_t(voxels(scan.shape)));
  for (int64_t i = 0; i < voxels(scan.shape); ++i) {
    const int64_t z = i / 1600 - 12, y = i / 40 % 40 - 20, x = i % 40 - 20;
    hounsfield[size_t(i)] = 4 * z * z + y * y + x * x < 150 ? 160 : -1000;
  }
  scan.data = std::move(hounsfield);

  const BackendRegistry backends = builtin_backends();
  auto model = load_model(argv[1], {});
  if (!model.ok()) return std::fprintf(stderr, "%s\n", model.error().to_string().c_str()), 1;
  auto segmenter = Segmenter::create(std::move(model).value(), *backends.all().front(), {.step = 1.0});
  if (!segmenter.ok()) return std::fprintf(stderr, "%s\n", segmenter.error().to_string().c_str()), 1;
  const auto result = segmenter->segment(std::move(scan));
  if (!result.ok()) return std::fprintf(stderr, "%s\n", result.error().to_string().c_str()), 1;
  int64_t foreground = 0;
  for (uint16_t label : result->labels.data) foreground += label != 0;
  std::printf("%lld of %lld voxels are foreground\n", static_cast<long long>(foreground),
              static_cast<long long>(result->labels.data.size()));
}
