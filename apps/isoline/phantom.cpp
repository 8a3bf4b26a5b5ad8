#include <cstdio>
#include <filesystem>
#include <iostream>

#include "cli.h"
#include "isoline/base/progress.h"
#include "isoline/io/nifti.h"
#include "isoline/phantom/phantom.h"

namespace isoline::cli {

Action add_phantom(CLI::App& app) {
  struct Options {
    Output output;
    uint64_t seed = 1;
    int count = 1, threads = 0;
    std::string folder, shape = "96,256,256", spacing = "2.5,1.3,1.3";
  };
  auto o = std::make_shared<Options>();
  app.add_option("--seed", o->seed, "Which patient; the same seed gives the same bytes everywhere")
      ->capture_default_str();
  app.add_option("--count", o->count, "How many, seeds counting up")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--shape", o->shape, "Voxels as z,y,x")->capture_default_str();
  app.add_option("--spacing", o->spacing, "Millimetres as z,y,x")->capture_default_str();
  app.add_option("-o,--output", o->folder, "Folder for imagesTs/ and labelsTs/ files")->required();
  app.add_option("--threads", o->threads, "Default: one per core")->check(CLI::Range(0, 1024));
  add_output_options(app, o->output);
  return [o]() -> Status {
    PhantomSpec spec;
    ISOLINE_ASSIGN(spec.shape, parse_shape(o->shape, "--shape"));
    ISOLINE_ASSIGN(spec.spacing_mm, parse_spacing(o->spacing, "--spacing"));
    ISOLINE_RETURN_IF_ERROR(validate(spec));
    namespace fs = std::filesystem;
    const fs::path images = fs::path(o->folder) / "imagesTs", labels = fs::path(o->folder) / "labelsTs";
    std::error_code ec;
    fs::create_directories(images, ec);
    if (!ec) fs::create_directories(labels, ec);
    if (ec) return Error{ErrorCode::kIo, "cannot make the folder: " + ec.message(), o->folder, ""};
    ThreadPool pool(o->threads);
    Progress bar("phantom", o->count, o->output.progress() && o->count > 1);
    Json cases = Json::array();
    for (int i = 0; i < o->count; ++i) {
      if (interrupted()) return Error{ErrorCode::kCancelled, "interrupted", "", ""};
      spec.seed = o->seed + uint64_t(i);
      ISOLINE_ASSIGN(Phantom phantom, make_phantom(spec, pool));
      char id[40];
      std::snprintf(id, sizeof(id), "phantom_%05llu", static_cast<unsigned long long>(spec.seed));
      const std::string image_path = (images / (std::string(id) + "_0000.nii.gz")).string();
      const std::string label_path = (labels / (std::string(id) + ".nii.gz")).string();
      const NiftiSource source = source_from(phantom.ct_hu.geometry, phantom.ct_hu.shape);
      Image image;
      image.channels = 1;
      image.shape = phantom.ct_hu.shape;
      image.geometry = phantom.ct_hu.geometry;
      image.data = std::move(phantom.ct_hu.data);
      ISOLINE_RETURN_IF_ERROR(write_image(image_path, image, source, pool));
      ISOLINE_RETURN_IF_ERROR(write_labels(label_path, phantom.labels, source, pool));
      cases.push_back({{"seed", spec.seed}, {"image", image_path}, {"labels", label_path}});
      bar.advance();
      if (!o->output.json && !o->output.quiet) std::cout << image_path << "\n" << label_path << "\n";
    }
    if (o->output.json)
      print({{"shape_zyx", spec.shape}, {"spacing_zyx_mm", spec.spacing_mm}, {"cases", cases}});
    return {};
  };
}

}  // namespace isoline::cli
