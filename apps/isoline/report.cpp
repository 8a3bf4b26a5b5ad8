#include "isoline/report/report.h"

#include <cstdio>
#include <ctime>
#include <filesystem>

#include "cli.h"
#include "isoline/base/file.h"
#include "isoline/lab/recommend.h"
#include "isoline/report/html.h"
#include "isoline/report/markdown.h"
#include "price_options.h"

namespace isoline::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  Output output;
  std::vector<std::string> runs;
  std::string folder;
  report::ReportOptions report;
};

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &parts);
  return text;
}

// What cannot be recommended, and why, is part of the report too.
std::vector<report::Recommendation> recommendations(const std::vector<lab::RunSummary>& runs) {
  std::vector<report::Recommendation> out;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].kind == "published") continue;
    for (const char* by : {"time", "energy"}) {
      const auto r = lab::recommend(runs[i], by);
      report::Recommendation one;
      one.run = i;
      one.by = by;
      if (r.ok()) {
        one.setting = r->setting;
        one.why = r->why;
        for (const auto* list : {&r->passed_over, &r->caveats})
          one.more.insert(one.more.end(), list->begin(), list->end());
      } else {
        one.why = r.error().to_string();
      }
      out.push_back(std::move(one));
    }
  }
  return out;
}

Status write_report(const Options& options) {
  std::vector<lab::RunSummary> runs;
  for (const std::string& path : options.runs) {
    ISOLINE_ASSIGN(lab::RunSummary run, lab::read_summary(path));
    runs.push_back(std::move(run));
  }
  report::ReportOptions settings = options.report;
  settings.written = now_utc();
  settings.recommendations = recommendations(runs);
  ISOLINE_ASSIGN(const report::Document document, report::make_report(runs, options.runs, settings));
  const report::MarkdownReport markdown = report::render_markdown(document);

  std::error_code ec;
  fs::create_directories(fs::path(options.folder) / "figures", ec);
  if (ec) return Error{ErrorCode::kIo, "cannot make the folder: " + ec.message(), options.folder, ""};
  // Figures first: whoever finds report.md finds what it shows.
  std::vector<std::string> written;
  const auto write = [&](const std::string& name, const std::string& text) -> Status {
    written.push_back((fs::path(options.folder) / name).string());
    return write_file_atomically(written.back(), text);
  };
  for (const auto& [name, text] : markdown.files) ISOLINE_RETURN_IF_ERROR(write(name, text));
  ISOLINE_RETURN_IF_ERROR(write("report.md", markdown.text));
  ISOLINE_RETURN_IF_ERROR(write("report.html", report::render_html(document)));
  if (options.output.json) {
    print({{"html", written.back()}, {"markdown", written[written.size() - 2]}, {"files", written}});
  } else if (!options.output.quiet) {
    std::printf("%s\n%s, with %zu figures beside it\n", written.back().c_str(),
                written[written.size() - 2].c_str(), markdown.files.size());
  }
  return {};
}

}  // namespace

Action add_report(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("runs", o->runs, "Run folders, summary.json files or published tables (docs/reference)")
      ->required()
      ->type_name("RUN");
  app.add_option("-o,--output", o->folder, "Folder for report.html, report.md and figures/")->required();
  app.add_option("--title", o->report.title, "Title (default: the experiment's)");
  app.add_option("--baseline", o->report.baseline,
                 "RUN[:SETTING] of the comparison (default: the first run's)");
  add_price_options(app, o->report.prices);
  add_output_options(app, o->output);
  return [o]() -> Status { return write_report(*o); };
}

}  // namespace isoline::cli
