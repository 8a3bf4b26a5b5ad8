#include <iostream>

#include "cli.h"
#include "isoline/io/nifti.h"
#include "isoline/io/png.h"
#include "isoline/render/overlay.h"

namespace isoline::cli {

Action add_overlay(CLI::App& app) {
  struct Options {
    std::string image, labels, reference, output;
    OverlayOptions render;
  };
  auto o = std::make_shared<Options>();
  app.add_option("-i,--image", o->image, "The scan")->required();
  app.add_option("-s,--labels", o->labels, "Labels to outline")->required();
  app.add_option("-r,--reference", o->reference, "Reference labels, dotted");
  app.add_option("-o,--output", o->output, "PNG file to write")->required();
  app.add_option("--window-low", o->render.window_low, "Intensity shown as black")->capture_default_str();
  app.add_option("--window-high", o->render.window_high, "Intensity shown as white")->capture_default_str();
  app.add_option("--height", o->render.panel_pixels, "Height in pixels")->capture_default_str();
  return [o]() -> Status {
    ThreadPool pool;
    ISOLINE_ASSIGN(const Scan scan, read_nifti(o->image, ReaderKind::kSimpleItk, {}, pool));
    ISOLINE_ASSIGN(const LabelMap labels, read_labels(o->labels, ReaderKind::kSimpleItk, {}, pool));
    LabelMap reference;
    if (!o->reference.empty()) {
      ISOLINE_ASSIGN(reference, read_labels(o->reference, ReaderKind::kSimpleItk, {}, pool));
    }
    ISOLINE_ASSIGN(
        const RgbImage picture,
        render_overlay(scan.image, labels, o->reference.empty() ? nullptr : &reference, o->render));
    return write_png(o->output, picture.pixels, picture.height, picture.width, 3);
  };
}

}  // namespace isoline::cli
