#include <filesystem>
#include <iostream>

#include "isoline/base/file.h"
#include "segment_cases.h"

namespace isoline::cli {
namespace {

struct Options {
  RunSettings run;
  Output output;
  std::string input, output_folder, previous_stage, device, precision = "fp32";
  std::vector<std::string> folds{"0", "1", "2", "3", "4"};
  double step = 0.5;
  bool disable_tta = false, verbose = false, save_probabilities = false, continue_prediction = false;
  bool disable_progress_bar = false, not_on_device = false;
  int npp = 3, nps = 3;
};

// The three files nnU-Net leaves in an output folder, so that its later steps find what they look for.
Status write_companions(const Options& o) {
  namespace fs = std::filesystem;
  const fs::path out(o.output_folder), model(o.run.model_folder);
  for (const char* name : {"dataset.json", "plans.json"}) {
    ISOLINE_ASSIGN(const Buffer<std::byte> bytes,
                   read_whole_file((model / name).string(), uint64_t{64} << 20));
    ISOLINE_RETURN_IF_ERROR(write_file_atomically((out / name).string(), bytes.span()));
  }
  const Json arguments = {
      {"list_of_lists_or_source_folder", o.input},
      {"output_folder_or_list_of_truncated_output_files", o.output_folder},
      {"save_probabilities", o.save_probabilities},
      {"overwrite", !o.continue_prediction},
      {"num_processes_preprocessing", o.npp},
      {"num_processes_segmentation_export", o.nps},
      {"folder_with_segs_from_prev_stage", o.previous_stage.empty() ? Json(nullptr) : Json(o.previous_stage)},
      {"num_parts", 1},
      {"part_id", 0}};
  return write_file_atomically((out / "predict_from_raw_data_args.json").string(),
                               arguments.dump(4, ' ', false, Json::error_handler_t::replace));
}

// nnU-Net's -device as a choice of backend; --backend, where given, stays.
Status choose_device(Options& o) {
  if (o.device == "cpu") {
    o.run.cpu_only = true;
    return {};
  }
  if (!o.device.empty() && o.device != "cuda")
    return Error{ErrorCode::kUnsupported, "device '" + o.device + "' is not available", "-device",
                 "Use -device cuda or -device cpu."};
  const BackendRegistry registry = builtin_backends();
  std::string why = "no GPU backend in this build";
  for (const Backend* b : registry.all())
    if (b->device_kind() == "gpu") {
      if (b->available()) {
        if (o.device == "cuda" && o.run.backend == "auto") o.run.backend = b->name();
        return {};
      }
      why = b->device_description();
    }
  if (o.device == "cuda")
    return Error{ErrorCode::kUnsupported, "device 'cuda' is not available: " + why, "-device",
                 "Use -device cpu."};
  std::cerr << "isoline: running on the CPU (nnU-Net's default would be a GPU)\n";
  return {};
}

}  // namespace

Action add_predict(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("-i", o->input, "Input folder with CASE_0000... files")->required();
  app.add_option("-o", o->output_folder, "Output folder; made if missing")->required();
  app.add_option("-m", o->run.model_folder, "Folder of the trained model")->required();
  app.add_option("-f", o->folds, "Folds to average (default 0 1 2 3 4)")->expected(1, 64);
  app.add_option("--step_size", o->step, "Step size of the sliding window")->capture_default_str();
  app.add_flag("--disable_tta", o->disable_tta, "No mirroring");
  app.add_flag("--verbose", o->verbose, "Say more");
  app.add_flag("--save_probabilities", o->save_probabilities, "Also write CASE.npz and CASE.pkl");
  app.add_flag("--continue_prediction,--c", o->continue_prediction, "Keep existing outputs");
  app.add_option("--chk", o->run.checkpoint, "Checkpoint name")->capture_default_str();
  app.add_option("--npp", o->npp, "Accepted and unused: there are no preprocessing processes");
  app.add_option("--nps", o->nps, "Accepted and unused: there are no export processes");
  app.add_option("--prev_stage_predictions", o->previous_stage,
                 "Folder of the previous stage's labels (cascades)");
  app.add_option("--device", o->device, "cuda or cpu; default: cuda where there is a GPU, else cpu");
  app.add_flag("--disable_progress_bar", o->disable_progress_bar, "No progress bar");
  app.add_flag("--not_on_device", o->not_on_device, "Accepted; Isoline chooses by the memory there is");
  app.add_option("--precision", o->precision, "Isoline's own: fp32 (as nnU-Net on a CPU) or bf16")
      ->capture_default_str();
  app.add_option("--backend", o->run.backend, "Isoline's own: see `isoline devices`")->capture_default_str();
  app.add_option("--threads", o->run.threads, "Isoline's own: default one per core")
      ->check(CLI::Range(0, 1024));
  app.add_flag("--json", o->output.json, "Isoline's own: one JSON object on standard output");
  return [o]() -> Status {
    ISOLINE_RETURN_IF_ERROR(choose_device(*o));
    o->output.quiet = o->disable_progress_bar;
    o->run.folds = o->folds;
    o->run.step = o->step;
    o->run.tta = o->disable_tta ? "none" : "all";
    o->run.precision = o->precision;
    o->run.save_probabilities = o->save_probabilities;
    o->run.save_properties = o->save_probabilities;
    o->run.continue_prediction = o->continue_prediction;
    ISOLINE_ASSIGN(OpenedModel model, open_model(o->run, o->output));
    const ModelSpec& spec = model.segmenter->spec();
    ISOLINE_ASSIGN(const std::vector<CaseFiles> cases,
                   cases_in_folder(o->input, spec.file_ending, o->output_folder, o->previous_stage));
    std::error_code ec;
    std::filesystem::create_directories(o->output_folder, ec);
    if (ec)
      return Error{ErrorCode::kIo, "cannot make the output folder: " + ec.message(), o->output_folder, ""};
    ISOLINE_RETURN_IF_ERROR(write_companions(*o));
    if (o->verbose)
      std::cerr << "isoline: " << cases.size() << " cases, backend " << model.backend->name() << ", "
                << o->precision << "; -npp and -nps are not needed\n";
    return run_cases(model, cases, o->run, o->output);
  };
}

}  // namespace isoline::cli
