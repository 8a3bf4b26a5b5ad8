#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>

#include "cli.h"
#include "isoline/backends/registry/registry.h"
#include "isoline/base/file.h"
#include "isoline/base/parallel.h"
#include "isoline/base/progress.h"
#include "isoline/base/resources.h"
#include "isoline/image_network/image_network.h"
#include "isoline/io/npy.h"
#include "segment_cases.h"

namespace isoline::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;

struct EmbedOptions {
  std::string model, output, backend = "auto", precision = "fp32";
  std::vector<std::string> inputs;
  int64_t batch = 32, max_pixels = DecodeLimits{}.max_pixels;
  int threads = 0;
  bool skip_bad = false;
  Output out;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool is_picture_name(const fs::path& path) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".webp";
}

// Files as given; folders give the pictures in and below them, by name.
Result<std::vector<std::string>> list_pictures(const std::vector<std::string>& inputs) {
  std::vector<std::string> out;
  for (const std::string& input : inputs) {
    std::error_code ec;
    if (!fs::is_directory(input, ec)) {
      out.push_back(input);  // one that is not there is that picture's error
      continue;
    }
    std::vector<std::string> found;
    for (fs::recursive_directory_iterator it(input, ec), end; !ec && it != end; it.increment(ec))
      if (is_picture_name(it->path()) && it->is_regular_file()) found.push_back(it->path().string());
    if (ec) return Error{ErrorCode::kIo, "cannot list the folder: " + ec.message(), input, ""};
    if (found.empty())
      return Error{ErrorCode::kNotFound, "the folder holds no .jpg, .jpeg, .png or .webp file", input, ""};
    std::sort(found.begin(), found.end());
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

// The first backend that runs the network; with `auto`, what is passed over for another reason than not
// running ONNX files at all is said.
Result<ImageNetwork> open_network(const EmbedOptions& o, const BackendRegistry& registry,
                                  std::string& backend_name) {
  ISOLINE_ASSIGN(const ImageModelSpec spec, read_image_model(o.model));
  TensorModelOptions options;
  ISOLINE_ASSIGN(options.precision, parse_precision(o.precision));
  options.max_batch = o.batch;
  options.threads = o.threads;
  DecodeLimits limits;
  limits.max_pixels = o.max_pixels;
  std::vector<const Backend*> candidates = registry.all();
  std::erase_if(candidates, [](const Backend* b) { return !b->available(); });
  if (o.backend != "auto") {
    ISOLINE_ASSIGN(const Backend* named, registry.find(o.backend));
    candidates = {named};
  }
  std::optional<Error> refusal;
  for (const Backend* backend : candidates) {
    const Status status = backend->supports_tensor_model(options);
    if (!status.ok()) {
      // A backend that knows ONNX files has more to say than one that does not.
      if (!refusal || backend->name() == "openvino") refusal = status.error();
      continue;
    }
    backend_name = backend->name();
    return ImageNetwork::open(spec, *backend, options, limits);
  }
  return *refusal;
}

Status embed(const EmbedOptions& o) {
  const auto start = Clock::now();
  ISOLINE_ASSIGN(const std::vector<std::string> files, list_pictures(o.inputs));
  if (files.empty()) return Error{ErrorCode::kInvalidArgument, "no pictures are given", "IMAGES", ""};
  const BackendRegistry registry = builtin_backends();
  std::string backend;
  ISOLINE_ASSIGN(const ImageNetwork network, open_network(o, registry, backend));
  ISOLINE_ASSIGN(ImageNetwork::Session session, network.create_session());
  // Found out before the work, not after it.
  if (!o.output.empty()) {
    ISOLINE_RETURN_IF_ERROR(AtomicFile::create(o.output));
  }
  const double load_s = seconds_since(start);

  ThreadPool pool(o.threads);
  const size_t picture_bytes = network.preprocessor().bytes_per_image();
  const auto d = size_t(network.dimensions());
  const int64_t most = std::min<int64_t>(network.max_batch(), int64_t(files.size()));
  // Decoded in groups of at least one picture a thread, even where the network takes one at a time.
  const auto group =
      size_t(std::max<int64_t>(most, std::min<int64_t>(pool.threads(), int64_t(files.size()))));
  Buffer<std::byte> input(group * picture_bytes);
  std::vector<float> vectors;
  vectors.reserve(files.size() * d);
  std::vector<std::string> done;
  Json failures = Json::array();
  std::optional<Error> first_error;
  double prepare_s = 0, network_s = 0;
  Progress bar("embed", int64_t(files.size()), o.out.progress());
  for (size_t at = 0; at < files.size(); at += group) {
    if (interrupted()) return Error{ErrorCode::kCancelled, "interrupted; nothing was written", "", ""};
    const size_t n = std::min(group, files.size() - at);
    std::vector<std::optional<Error>> errors(n);
    const auto prepare = Clock::now();
    pool.for_each(int64_t(n), 1, [&](int64_t begin, int64_t end) {
      for (auto i = size_t(begin); i < size_t(end); ++i) {
        const auto bytes = read_whole_file(files[at + i], kMaxFileBytes);
        const Status status =
            bytes.ok()
                ? network.preprocessor().run(bytes->span(), {input.data() + i * picture_bytes, picture_bytes})
                : Status(bytes.error());
        if (!status.ok()) errors[i] = bytes.ok() ? status.error().in(files[at + i]) : status.error();
        bar.advance();
      }
    });
    // Good pictures move together.
    size_t good = 0;
    for (size_t i = 0; i < n; ++i) {
      if (errors[i]) {
        if (files.size() > 1) std::cerr << "isoline: " << errors[i]->to_string() << "\n";
        failures.push_back({{"image", files[at + i]}, {"error", to_json(*errors[i])}});
        if (!first_error) first_error = errors[i];
        continue;
      }
      if (good != i)
        std::copy_n(input.data() + i * picture_bytes, picture_bytes, input.data() + good * picture_bytes);
      ++good;
      done.push_back(files[at + i]);
    }
    prepare_s += seconds_since(prepare);
    if (first_error && !o.skip_bad) continue;  // nothing will be written: only name the other bad ones
    const auto run = Clock::now();
    for (size_t i = 0; i < good; i += size_t(most)) {
      const size_t m = std::min(size_t(most), good - i);
      vectors.resize(vectors.size() + m * d);
      ISOLINE_RETURN_IF_ERROR(session.run({input.data() + i * picture_bytes, m * picture_bytes}, int64_t(m),
                                          std::span(vectors).last(m * d)));
    }
    network_s += seconds_since(run);
  }
  bar.finish();
  if (first_error && (!o.skip_bad || done.empty())) {
    if (files.size() == 1) return *first_error;
    return Error{first_error->code,
                 std::to_string(failures.size()) + " of " + std::to_string(files.size()) +
                     " pictures cannot be used; nothing was written",
                 "", done.empty() ? "" : "Leave them out, or pass --skip-bad."};
  }
  const std::vector<int64_t> shape{int64_t(done.size()), int64_t(d)};
  if (!o.output.empty()) {
    ISOLINE_RETURN_IF_ERROR(write_npy<float>(o.output, vectors, shape));
  }
  const double total_s = seconds_since(start);
  if (o.out.json) {
    Json j = {{"version", ISOLINE_VERSION},
              {"model", {{"folder", o.model}, {"name", network.spec().name}, {"dimensions", d}}},
              {"settings",
               {{"backend", backend},
                {"precision", o.precision},
                {"batch", most},
                {"threads", pool.threads()},
                {"l2_normalize", network.spec().l2_normalize},
                {"softmax", network.spec().softmax}}},
              {"ran_on", network.model().info().description},
              {"boundary", "read to written, file to file; prepare: read, decode, resize, normalise"},
              {"output", o.output.empty() ? Json(nullptr) : Json(o.output)},
              {"shape", shape},
              {"images", done},
              {"failures", failures},
              {"load_s", load_s},
              {"prepare_s", prepare_s},
              {"network_s", network_s},
              {"total_s", total_s},
              {"peak_rss_bytes", peak_rss_bytes()}};
    if (o.output.empty()) {
      j["vectors"] = Json::array();
      for (size_t i = 0; i < done.size(); ++i)
        j["vectors"].push_back(
            std::vector<float>(vectors.begin() + int64_t(i * d), vectors.begin() + int64_t((i + 1) * d)));
    }
    print(j);
  } else if (!o.out.quiet) {
    std::printf(
        "%zu picture%s, %zu values each%s; load %.2f s, prepare %.2f s, network %.2f s, total %.2f s\n",
        done.size(), done.size() == 1 ? "" : "s", d,
        failures.empty() ? "" : (", " + std::to_string(failures.size()) + " skipped").c_str(), load_s,
        prepare_s, network_s, total_s);
    std::printf("ran on %s; peak RSS %.0f MiB\n", network.model().info().description.c_str(),
                double(peak_rss_bytes()) / (1 << 20));
  }
  return {};
}

}  // namespace

Action add_embed(CLI::App& app) {
  auto o = std::make_shared<EmbedOptions>();
  app.add_option("-m,--model", o->model, "Folder with isoline_image.json and its ONNX file")->required();
  app.add_option("images", o->inputs, "JPEG, PNG and WebP files, and folders of them")->required();
  app.add_option("-o,--output", o->output, "NumPy file: float32 [pictures, values]");
  app.add_option("--backend", o->backend, "See `isoline devices`; auto: the first that can")
      ->capture_default_str();
  app.add_option("--precision", o->precision, "fp32 or bf16, as the backend has it")->capture_default_str();
  app.add_option("--batch", o->batch, "Most pictures a run")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--threads", o->threads, "Default: one per core")->check(CLI::Range(0, 1024));
  app.add_option("--max-pixels", o->max_pixels, "Refuse larger pictures")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 32))
      ->capture_default_str();
  app.add_flag("--skip-bad", o->skip_bad, "Leave out pictures that cannot be read, naming each");
  add_output_options(app, o->out);
  return [o]() -> Status {
    if (o->output.empty() && !o->out.json)
      return Error{ErrorCode::kInvalidArgument, "vectors go nowhere", "-o",
                   "Pass -o vectors.npy, --json or both."};
    return embed(*o);
  };
}

}  // namespace isoline::cli
