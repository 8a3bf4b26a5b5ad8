// Any bytes as a .nii or .nii.gz file, through every reader; what can be read is written back.
#include <cstdlib>

#include "isoline/io/nifti.h"

using namespace isoline;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ThreadPool pool(1);
  ReadLimits limits;
  limits.max_bytes = uint64_t{64} << 20;
  const auto bytes = std::as_bytes(std::span(data, size));
  for (ReaderKind kind : {ReaderKind::kSimpleItk, ReaderKind::kSimpleItkReorient, ReaderKind::kNibabel,
                          ReaderKind::kNibabelReorient}) {
    limits.allow_nonfinite = !limits.allow_nonfinite;
    auto scan = read_nifti_bytes(bytes, "input", kind, limits, pool);
    if (!scan.ok()) {
      if (scan.error().message.empty()) std::abort();
      continue;
    }
    const Image& image = scan->image;
    const size_t values = std::visit([](const auto& b) { return b.size(); }, image.data);
    if (values != size_t(image.channels * voxels(image.shape))) std::abort();
    for (double s : image.geometry.spacing_mm)
      if (!(s > 0)) std::abort();
    if (values > 100000) continue;
    LabelMap labels(image.shape, image.geometry);
    for (size_t i = 0; i < labels.data.size(); ++i) labels.data[i] = uint16_t(i);
    std::vector<std::byte> written;
    const Status status = encode_labels(labels, scan->source, true, pool, [&](std::span<const std::byte> b) {
      written.insert(written.end(), b.begin(), b.end());
      return Status();
    });
    if (!status.ok()) continue;
    // What was written can be read again, on the same grid. (Turned to RAS, an axis halfway between two world
    // axes may be named otherwise once its direction is rounded to float.)
    if (kind == ReaderKind::kSimpleItkReorient || kind == ReaderKind::kNibabelReorient) continue;
    limits.allow_nonfinite = true;
    const auto again = read_nifti_bytes(written, "written", kind, limits, pool);
    if (!again.ok() || again->image.shape != image.shape) std::abort();
  }
  return 0;
}
