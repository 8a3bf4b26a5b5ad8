#include "segment_cases.h"

namespace isoline::cli {

Action add_segment(CLI::App& app) {
  struct Options {
    RunSettings run;
    Output output;
    std::vector<std::string> inputs;
    std::string output_path, folds, previous_stage;
  };
  auto o = std::make_shared<Options>();
  app.add_option("-m,--model", o->run.model_folder, "nnU-Net results folder or ONNX bundle")->required();
  app.add_option("-i,--input", o->inputs, "A scan, the channels of one scan in order, or a folder of scans")
      ->required();
  app.add_option("-o,--output", o->output_path, "Label file, or folder for label files")->required();
  app.add_option("--folds", o->folds, "Folds to average, e.g. 0,1,2; default: all there are");
  app.add_option("--checkpoint", o->run.checkpoint, "Checkpoint file inside each fold")
      ->capture_default_str();
  app.add_option("--step", o->run.step, "Largest window move as a fraction of the patch")
      ->capture_default_str();
  app.add_option("--tta", o->run.tta, "Mirroring: all, none or axes such as 0,1")->capture_default_str();
  app.add_option("--precision", o->run.precision, "fp32, tf32, bf16 or fp16, as the backend has it")
      ->capture_default_str();
  app.add_option("--backend", o->run.backend, "See `isoline devices`; auto: the first that can")
      ->capture_default_str();
  app.add_option("--threads", o->run.threads, "Default: one per core")->check(CLI::Range(0, 1024));
  app.add_option("--prev-stage", o->previous_stage, "Cascades: labels of the previous stage, file or folder");
  app.add_option("--postprocessing", o->run.postprocessing_file, "nnU-Net's postprocessing.pkl to apply");
  app.add_option("--max-ram", o->run.max_ram_bytes, "Refuse scans estimated to need more, e.g. 4GiB")
      ->transform(CLI::AsSizeValue(false));
  app.add_option(
         "--max-vram", o->run.max_vram_bytes,
         "GPU memory to use at most, without the driver's own share, e.g. 3GiB; scans that need more come "
         "in slabs")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--batch", o->run.batch, "Windows at a time on a GPU; default: chosen")
      ->check(CLI::Range(1, 8));
  app.add_option("--autotune", o->run.autotune,
                 "GPU kernels chosen by measurement: off, same-bits (never changes results) or all")
      ->capture_default_str();
  app.add_flag_callback(
      "--no-autotune", [o] { o->run.autotune = "off"; }, "As --autotune off");
  app.add_flag("--save-probabilities", o->run.save_probabilities,
               "Also write CASE.npz with softmax or sigmoid");
  app.add_flag("--continue", o->run.continue_prediction, "Skip cases whose output exists");
  app.add_option("--profile", o->run.profile_file,
                 "Also print times by stage and layer and write a Chrome trace to this file");
  app.add_option("--overlap", o->run.overlap)->check(CLI::IsMember({"auto", "on", "off"}))->group("");
  add_output_options(app, o->output);
  return [o]() -> Status {
    o->run.folds = split_commas(o->folds);
    ISOLINE_ASSIGN(OpenedModel model, open_model(o->run, o->output));
    const ModelSpec& spec = model.segmenter->spec();
    ISOLINE_ASSIGN(const std::vector<CaseFiles> cases,
                   cases_from_input(o->inputs, int(spec.channels.size()), spec.file_ending, o->output_path,
                                    o->previous_stage));
    return run_cases(model, cases, o->run, o->output);
  };
}

}  // namespace isoline::cli
