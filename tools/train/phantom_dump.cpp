// phantom_dump: writes phantoms as raw files for training, with nothing but the phantom room linked in.
//   phantom_dump OUT_DIR NZ NY NX SPACING_Z SPACING_Y SPACING_X FIRST_SEED COUNT [THREADS]
// For each seed: OUT_DIR/<seed>.bin = 3 int32 [nz, ny, nx], 3 float64 spacing [z, y, x] in mm, int16 HU,
// uint8 labels, all little-endian and in [z, y, x] order.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "isoline/base/parallel.h"
#include "isoline/phantom/phantom.h"

int main(int argc, char** argv) {
  if (argc < 10) {
    std::fprintf(stderr, "usage: phantom_dump OUT_DIR NZ NY NX SZ SY SX FIRST_SEED COUNT [THREADS]\n");
    return 2;
  }
  isoline::PhantomSpec spec;
  spec.shape = {std::atoll(argv[2]), std::atoll(argv[3]), std::atoll(argv[4])};
  spec.spacing_mm = {std::atof(argv[5]), std::atof(argv[6]), std::atof(argv[7])};
  const uint64_t first = std::strtoull(argv[8], nullptr, 10), count = std::strtoull(argv[9], nullptr, 10);
  isoline::ThreadPool pool(argc > 10 ? std::atoi(argv[10]) : 0);
  for (uint64_t seed = first; seed < first + count; ++seed) {
    spec.seed = seed;
    const auto p = isoline::make_phantom(spec, pool);
    if (!p.ok()) {
      std::fprintf(stderr, "%s\n", p.error().to_string().c_str());
      return 1;
    }
    const std::string path = std::string(argv[1]) + "/" + std::to_string(seed) + ".bin";
    std::FILE* f = std::fopen(path.c_str(), "wb");
    if (!f) {
      std::perror(path.c_str());
      return 1;
    }
    const int32_t shape[3] = {int32_t(spec.shape[0]), int32_t(spec.shape[1]), int32_t(spec.shape[2])};
    std::vector<uint8_t> labels(p->labels.data.begin(), p->labels.data.end());
    bool good = std::fwrite(shape, sizeof shape, 1, f) == 1;
    good = good && std::fwrite(spec.spacing_mm.data(), sizeof(double), 3, f) == 3;
    good = good && std::fwrite(p->ct_hu.data.data(), 2, p->ct_hu.data.size(), f) == p->ct_hu.data.size();
    good = good && std::fwrite(labels.data(), 1, labels.size(), f) == labels.size();
    if (std::fclose(f) != 0 || !good) {
      std::fprintf(stderr, "%s: could not be written\n", path.c_str());
      return 1;
    }
  }
  return 0;
}
