#include "segment_cases.h"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <future>
#include <iostream>
#include <optional>

#include "isoline/base/file.h"
#include "isoline/base/progress.h"
#include "isoline/base/resources.h"
#include "isoline/pipeline/case_json.h"
#include "isoline/pipeline/open_segmenter.h"
#include "profile.h"

namespace isoline::cli {
namespace {

// CASE.nii.gz -> CASE<ending>.
std::string beside(const std::string& output, const std::string& new_ending) {
  std::string stem = output;
  for (const std::string ending : {".nii.gz", ".nii"})
    if (stem.size() > ending.size() &&
        stem.compare(stem.size() - ending.size(), ending.size(), ending) == 0) {
      stem.resize(stem.size() - ending.size());
      break;
    }
  return stem + new_ending;
}

Json case_json(const CaseFiles& files, const CaseResult& r) {
  Json json{{"id", files.id}, {"images", files.images}, {"output", files.output}};
  json.update(to_json(r));
  return json;
}

void print_table(const std::vector<DoneCase>& done, const std::string& device, double wall_s) {
  if (done.empty()) return;
  std::printf("%-24s %8s %10s %9s %8s %7s %9s  %s\n", "case", "read s", "preproc s", "network s", "export s",
              "write s", "total s", "windows x mirrors x folds");
  for (const auto& [files, r] : done) {
    const Segmentation& s = r.segmentation;
    const StageTimes& t = s.times;
    std::printf("%-24.24s %8.2f %10.2f %9.2f %8.2f %7.2f %9.2f  %lld x %lld\n", files.id.c_str(), t.read_s,
                t.preprocess_s, t.network_s, t.export_s, t.write_s, r.total_s,
                static_cast<long long>(s.windows),
                static_cast<long long>(s.windows ? s.forwards / s.windows : 0));
  }
  if (done.size() > 1) std::printf("%zu cases in %.2f s; ", done.size(), wall_s);
  std::printf("ran on %s; peak RSS %.0f MiB", device.c_str(), double(peak_rss_bytes()) / (1 << 20));
  uint64_t vram = 0;
  bool streamed = false;
  for (const auto& [files, r] : done)
    if (r.segmentation.device) {
      vram = std::max(vram, r.segmentation.device->peak_device_bytes);
      streamed |= r.segmentation.device->streamed;
    }
  if (vram) std::printf("; peak VRAM %.0f MiB beside the driver's own", double(vram) / (1 << 20));
  if (streamed) std::printf("; scans came in slabs and were resampled on the CPU");
  std::printf("\n");
  for (const auto& [files, r] : done)
    if (r.segmentation.device && !r.segmentation.device->tuning.empty())
      std::printf("kernels: %s\n", r.segmentation.device->tuning.c_str());
}

using Clock = std::chrono::steady_clock;

// What became of the cases, told in their order whatever the order in which they end: warnings and errors go
// to standard error as soon as everything before them is known. One thread.
class CaseReport {
 public:
  // overlapped: whether parts of different cases run at the same time, so that it matters when.
  CaseReport(const std::vector<CaseFiles>& cases, const Output& output, bool overlapped)
      : cases_(cases), output_(output), overlapped_(overlapped), ended_(cases.size()) {}
  // Of a moment since the first case began.
  double seconds(Clock::time_point t) const { return std::chrono::duration<double>(t - start_).count(); }

  void skipped(size_t i) { end(i, {true, std::nullopt}); }
  void ended(size_t i, Result<CaseResult> result) { end(i, {false, std::move(result)}); }

  const Json& results() const { return results_; }
  const Json& failures() const { return failures_; }
  const std::vector<DoneCase>& done() const { return done_; }
  Clock::time_point start() const { return start_; }
  const std::optional<Error>& first_error() const { return first_error_; }

 private:
  struct End {
    bool skipped = false;
    std::optional<Result<CaseResult>> result;
  };

  void end(size_t i, End e) {
    ended_[i] = std::move(e);
    while (told_ < ended_.size() && ended_[told_]) {
      tell(cases_[told_], *ended_[told_]);
      ++told_;
    }
  }
  void tell(const CaseFiles& c, End& e) {
    if (e.skipped) {
      results_.push_back({{"id", c.id}, {"output", c.output}, {"skipped", true}});
      return;
    }
    Result<CaseResult>& result = *e.result;
    if (result.ok()) {
      for (const std::string& w : result->warnings)
        if (!output_.quiet) std::cerr << "isoline: warning: " << c.id << ": " << w << "\n";
      Json json = case_json(c, *result);
      if (overlapped_) {
        const auto pair = [&](const Period& p) { return Json::array({seconds(p.begin), seconds(p.end)}); };
        Period write = result->write;
        if (result->postprocess) write.begin = result->postprocess->begin;
        json["timeline_s"] = {
            {"read", pair(result->read)}, {"segment", pair(result->segment)}, {"write", pair(write)}};
      }
      results_.push_back(std::move(json));
      done_.emplace_back(c, std::move(result).value());
      return;
    }
    const Error error = result.error().in(c.id);
    if (!first_error_) first_error_ = error;
    failures_.push_back({{"id", c.id}, {"error", to_json(result.error())}});
    if (cases_.size() > 1) std::cerr << "isoline: " << error.to_string() << "\n";
  }

  const std::vector<CaseFiles>& cases_;
  const Output& output_;
  const bool overlapped_;
  const Clock::time_point start_ = Clock::now();
  std::vector<std::optional<End>> ended_;
  size_t told_ = 0;
  std::vector<DoneCase> done_;
  Json results_ = Json::array(), failures_ = Json::array();
  std::optional<Error> first_error_;
};

// The two orders in which cases are run. A failing case is reported and the others go on; an interrupt ends
// the loop.
struct CaseLoop {
  OpenedModel& model;
  const std::vector<CaseFiles>& cases;
  const RunSettings& settings;
  const Output& output;
  const CaseOptions& shared_options;
  CaseReport& report;

  void run_one_by_one() {
    for (size_t i = first_to_run(0); i < cases.size(); i = first_to_run(i + 1)) {
      CaseProgress progress(*this, i);
      auto result =
          segment_case(*model.segmenter, cases[i], options_of(i), progress.function(), &interrupted());
      progress.end();
      const bool cancelled = !result.ok() && result.error().code == ErrorCode::kCancelled;
      report.ended(i, std::move(result));
      if (cancelled) return;
    }
  }

  // While the device works on one case the next is read and the last one written, each on a thread and a pool
  // of its own. At most one scan waits for the device and one result for the disk. All three together stay
  // within --max-ram: what does not fit beside the others waits until they are gone.
  void run_overlapped() {
    const ModelSpec& spec = model.segmenter->spec();
    const int threads = model.segmenter->pool().threads();
    ThreadPool read_pool(std::max(1, threads / 2)), write_pool(std::max(1, threads / 4));
    const auto read = [&](size_t i, uint64_t max_bytes) {
      ReadLimits limits = shared_options.limits;
      limits.max_bytes = max_bytes;
      return read_scan(spec, cases[i], limits, read_pool);
    };
    // The futures come after the pools: leaving waits for the threads first.
    std::future<Result<CaseResult>> writing;
    size_t writing_case = 0;
    uint64_t writing_bytes = 0;
    const auto end_writing = [&] {
      if (!writing.valid()) return;
      Result<CaseResult> result = writing.get();
      writing_bytes = 0;
      report.ended(writing_case, std::move(result));
    };
    const uint64_t all = shared_options.limits.max_bytes;
    std::future<Result<CaseScan>> reading;
    size_t next = first_to_run(0);
    uint64_t next_max_bytes = all;
    const auto begin_reading = [&](uint64_t max_bytes) {
      next_max_bytes = max_bytes;
      if (next < cases.size()) reading = std::async(std::launch::async, read, next, max_bytes);
    };
    for (begin_reading(all); next < cases.size();) {
      const size_t i = next;
      Result<CaseScan> in = reading.get();
      if (!in.ok() && in.error().code == ErrorCode::kResourceExhausted && next_max_bytes < all) {
        end_writing();  // it did not fit beside the others; now it is alone
        in = read(i, all);
      }
      next = first_to_run(i + 1);
      uint64_t held = 0;
      if (in.ok() && settings.max_ram_bytes) {
        held = model.segmenter->estimate_bytes(in->scan.image) + in->previous.data.byte_size();
        if (held + writing_bytes > all) end_writing();
      }
      begin_reading(settings.max_ram_bytes ? all - std::min(all, held + writing_bytes) : all);
      if (!in.ok()) {
        report.ended(i, std::move(in).error());
        continue;
      }
      CaseProgress progress(*this, i);
      auto segmented =
          segment_scan(*model.segmenter, std::move(in).value(), progress.function(), &interrupted());
      progress.end();
      end_writing();
      if (!segmented.ok()) {
        const bool cancelled = segmented.error().code == ErrorCode::kCancelled;
        report.ended(i, std::move(segmented).error());
        if (cancelled) return;
        continue;
      }
      writing_case = i;
      writing_bytes = segmented->byte_size();
      writing = std::async(
          std::launch::async,
          [&spec, &write_pool, this](SegmentedCase done, size_t k) {
            return finish_case(spec, std::move(done), cases[k], options_of(k), write_pool);
          },
          std::move(segmented).value(), i);
    }
    end_writing();
  }

 private:
  // The bar of one case, drawn from the first forward pass on.
  class CaseProgress {
   public:
    CaseProgress(const CaseLoop& loop, size_t i)
        : label_(loop.cases.size() > 1 ? "[" + std::to_string(i + 1) + "/" +
                                             std::to_string(loop.cases.size()) + "] " + loop.cases[i].id
                                       : loop.cases[i].id),
          visible_(loop.output.progress()) {}
    ProgressFunction function() {
      return [this](int64_t n, int64_t total) {
        if (!bar_) bar_ = std::make_unique<Progress>(label_, total, visible_);
        bar_->set(n);
      };
    }
    void end() { bar_.reset(); }

   private:
    std::string label_;
    bool visible_;
    std::unique_ptr<Progress> bar_;
  };

  CaseOptions options_of(size_t i) const {
    CaseOptions options = shared_options;
    if (settings.save_probabilities) options.probabilities_path = beside(cases[i].output, ".npz");
    if (settings.save_properties) options.properties_path = beside(cases[i].output, ".pkl");
    return options;
  }
  // The first case from i on that is to be run; those passed over for --continue are reported.
  size_t first_to_run(size_t i) {
    std::error_code ec;
    for (; i < cases.size(); ++i) {
      const std::string& path = cases[i].output;
      const bool there = settings.continue_prediction && std::filesystem::exists(path, ec) &&
                         (!settings.save_probabilities || std::filesystem::exists(beside(path, ".npz"), ec));
      if (!there) break;
      report.skipped(i);
    }
    return i;
  }
};

// Measures what --profile asks for and writes its trace.
Result<Profile> write_profile(OpenedModel& model, const RunSettings& settings, const CaseReport& report,
                              AtomicFile& file) {
  ISOLINE_ASSIGN(const Precision precision, parse_precision(settings.precision));
  Profile profile = measure_profile(model, precision, report.done());
  const std::string text =
      chrome_trace(profile, report.done(), model.segmenter->session_description(), report.start())
          .dump(-1, ' ', false, Json::error_handler_t::replace) +
      "\n";
  ISOLINE_RETURN_IF_ERROR(file.write(std::as_bytes(std::span(text))));
  ISOLINE_RETURN_IF_ERROR(file.commit());
  return profile;
}

}  // namespace

Result<Precision> parse_precision(const std::string& text) {
  auto precision = isoline::parse_precision(text);
  if (!precision.ok()) return precision.error().in("--precision");
  return precision;
}

Result<OpenedModel> open_model(const RunSettings& settings, const Output& output) {
  const auto start = std::chrono::steady_clock::now();
  OpenedModel out;
  out.registry = std::make_unique<BackendRegistry>(builtin_backends());
  SegmenterOptions options;
  ISOLINE_ASSIGN(options.precision, parse_precision(settings.precision));
  options.step = settings.step;
  options.threads = settings.threads;
  options.with_probabilities = settings.save_probabilities;
  options.max_ram_bytes = settings.max_ram_bytes;
  options.max_device_bytes = settings.max_vram_bytes;
  options.batch = settings.batch;
  auto autotune = parse_autotune(settings.autotune);
  if (!autotune.ok()) return autotune.error().in("--autotune");
  options.autotune = *autotune;
  ISOLINE_ASSIGN(options.mirror_axes, parse_mirror_axes(settings.tta));
  ISOLINE_ASSIGN(LoadedModel model, load_model(settings.model_folder, {settings.folds, settings.checkpoint}));
  if (!output.quiet)
    for (const std::string& w : model.warnings) std::cerr << "isoline: warning: " << w << "\n";

  ISOLINE_ASSIGN(OpenedSegmenter opened,
                 open_segmenter(std::move(model), *out.registry, {settings.backend, settings.cpu_only},
                                options, [](const Backend& backend, const Error& why) {
                                  std::cerr << "isoline: backend " << backend.name()
                                            << " passed over: " << why.to_string() << "\n";
                                }));
  out.segmenter = std::move(opened.segmenter);
  out.backend = opened.backend;
  out.load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return out;
}

Status run_cases(OpenedModel& model, const std::vector<CaseFiles>& cases, const RunSettings& settings,
                 const Output& output) {
  CaseOptions options;
  if (settings.max_ram_bytes) options.limits.max_bytes = settings.max_ram_bytes;
  PostprocessingSpec postprocessing;
  if (!settings.postprocessing_file.empty()) {
    ISOLINE_ASSIGN(postprocessing, load_postprocessing(settings.postprocessing_file));
    options.postprocessing = &postprocessing;
  }
  std::error_code ec;
  for (const CaseFiles& c : cases) {
    const auto parent = std::filesystem::path(c.output).parent_path();
    if (!parent.empty()) std::filesystem::create_directories(parent, ec);
    if (ec)
      return Error{ErrorCode::kIo, "cannot make the output folder: " + ec.message(), parent.string(),
                   "Choose a folder you may write to."};
  }
  std::optional<AtomicFile> trace_file;  // made before hours of work, not after
  if (!settings.profile_file.empty()) {
    ISOLINE_ASSIGN(trace_file, AtomicFile::create(settings.profile_file));
  }
  // On the CPU every core already works on the network; a second scan beside it would only cost memory.
  const bool overlap = settings.overlap == "auto" ? model.backend->device_kind() == "gpu" && cases.size() > 1
                                                  : settings.overlap == "on";
  CaseReport report(cases, output, overlap);
  CaseLoop loop{model, cases, settings, output, options, report};
  if (overlap)
    loop.run_overlapped();
  else
    loop.run_one_by_one();
  const double wall_s = report.seconds(Clock::now());
  std::optional<Profile> profile;
  std::optional<Error> profile_error;  // told after the results, which are there
  if (trace_file && !report.done().empty() && !interrupted()) {
    auto made = write_profile(model, settings, report, *trace_file);
    if (made.ok())
      profile = std::move(made).value();
    else
      profile_error = made.error();
  }
  const ModelSpec& spec = model.segmenter->spec();
  if (output.json) {
    Json json{{"version", ISOLINE_VERSION},
              {"model",
               {{"folder", settings.model_folder},
                {"dataset", spec.dataset_name},
                {"configuration", spec.configuration},
                {"trainer", spec.trainer_name},
                {"folds", spec.folds},
                {"patch_size", spec.patch_size},
                {"spacing_mm", spec.spacing_mm}}},
              {"settings",
               {{"backend", model.backend->name()},
                {"precision", settings.precision},
                {"step", settings.step},
                {"mirrors", model.segmenter->mirrors()},
                {"threads", model.segmenter->pool().threads()}}},
              {"ran_on", model.segmenter->session_description()},
              {"boundary",
               "read to written, file to file; stages_s.network includes cutting and adding up windows"},
              {"load_s", model.load_s},
              {"overlapped", overlap},
              {"wall_s", wall_s},
              {"cases", report.results()},
              {"failures", report.failures()},
              {"peak_rss_bytes", peak_rss_bytes()}};
    if (profile) json["profile"] = profile_json(*profile, report.done());
    print(json);
  } else if (!output.quiet) {
    print_table(report.done(), model.segmenter->session_description(), wall_s);
    if (profile) print_profile(*profile);
  }
  if (report.first_error()) return *report.first_error();
  if (profile_error) return *profile_error;
  return {};
}

}  // namespace isoline::cli
