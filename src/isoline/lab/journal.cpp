#include "isoline/lab/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "isoline/base/file.h"
#include "isoline/lab/json_fields.h"

namespace isoline::lab {

template <class V>
void fields(V& v, SessionEntry& s) {
  v("started", s.started), v("isoline_version", s.isoline_version), v("commit", s.commit),
      v("device", s.device);
  v("energy_sources", s.energy_sources), v("meter", s.meter);
}
template <class V>
void fields(V& v, IdleEntry& i) {
  v("started", i.started), v("state", i.state), v("seconds", i.seconds), v("gpu_w", i.gpu_w),
      v("cpu_w", i.cpu_w);
}
template <class V>
void fields(V& v, RegionScores& s) {
  v("dice", s.dice), v("dice_nnunet", s.dice_nnunet), v("surface_dice", s.surface_dice),
      v("hd95_mm", s.hd95_mm);
  v("hd95_infinite", s.hd95_infinite), v("reference_mm3", s.reference_mm3),
      v("predicted_mm3", s.predicted_mm3);
}
template <class V>
void fields(V& v, RunEntry& r) {
  v("started", r.started), v("setting", r.setting), v("case", r.case_id), v("repetition", r.repetition);
  v("error", r.error), v("runtime", r.runtime), v("device_kind", r.device_kind), v("wall_s", r.wall_s),
      v("stages_s", r.stages_s);
  v("windows", r.windows), v("forwards", r.forwards), v("forward_ms", r.forward_ms);
  v("meter_wall_s", r.meter_wall_s), v("cpu_s", r.cpu_s), v("peak_rss_bytes", r.peak_rss_bytes);
  v("peak_vram_bytes", r.peak_vram_bytes), v("energy_gross_j", r.energy_gross_j);
  v("energy_integrated_j", r.energy_integrated_j), v("energy_uncertainty_j", r.energy_uncertainty_j);
  v("average_power_w", r.average_power_w), v("peak_power_w", r.peak_power_w),
      v("cpu_energy_j", r.cpu_energy_j);
  v("temperature_max_c", r.temperature_max_c), v("sm_clock_mean_mhz", r.sm_clock_mean_mhz);
  v("throttled", r.throttled), v("throttle_reasons", r.throttle_reasons), v("warnings", r.warnings);
  v("labels_sha256", r.labels_sha256), v("regions", r.regions), v("lesions_found", r.lesions_found);
  v("lesions_false_positive", r.lesions_false_positive);
}

namespace {

constexpr uint64_t kMaxJournalBytes = uint64_t{1} << 32;
constexpr const char* kFileName = "results.jsonl";
constexpr size_t kSealBytes = 20;  // ,"crc32":"01234567"} at the end of every line

// The line with its checksum as last field; `text` is an object without its closing brace.
std::string sealed(const std::string& text) {
  const uLong crc =
      crc32(crc32(0, nullptr, 0), reinterpret_cast<const Bytef*>(text.data()), uInt(text.size()));
  char seal[kSealBytes + 1];
  std::snprintf(seal, sizeof seal, ",\"crc32\":\"%08lx\"}", static_cast<unsigned long>(crc & 0xffffffffu));
  return text + seal;
}

template <class T>
std::string line_of(const char* kind, const T& entry) {
  JsonWriter writer;
  writer.json["kind"] = kind;
  T copy = entry;
  fields(writer, copy);
  std::string text = writer.json.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.pop_back();
  return sealed(text) + "\n";
}

Status parse_line(const std::string& line, JournalContent& out) {
  const Error corrupt{ErrorCode::kCorrupt, "this line is damaged: it does not fit its checksum", "", ""};
  if (line.size() <= kSealBytes || sealed(line.substr(0, line.size() - kSealBytes)) != line) return corrupt;
  const Json json = parse_json_text(line);
  if (!json.is_object()) return corrupt;
  Status status;
  JsonReader reader{json, "", status};
  const Json kind = json.value("kind", Json());
  if (kind == "session")
    fields(reader, out.sessions.emplace_back());
  else if (kind == "idle")
    fields(reader, out.idle.emplace_back());
  else if (kind == "run")
    fields(reader, out.runs.emplace_back());
  else
    return Error{ErrorCode::kCorrupt, "this line is of no known kind", "", "It may be from a newer version."};
  return status;
}

// Returns the length up to the last complete line.
Result<size_t> parse(const std::string& text, const std::string& file, JournalContent& out) {
  size_t at = 0, number = 1;
  for (size_t end; (end = text.find('\n', at)) != std::string::npos; at = end + 1, ++number)
    if (const Status s = parse_line(text.substr(at, end - at), out); !s.ok()) {
      Error e = s.error();
      if (e.remedy.empty())
        e.remedy = "Nothing was changed. Restore the file, or delete this line to have its case run again.";
      return e.in(file + ":" + std::to_string(number));
    }
  return at;
}

Result<std::string> text_of(const std::string& file) {
  ISOLINE_ASSIGN(const Buffer<std::byte> bytes, read_whole_file(file, kMaxJournalBytes));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

struct Journal::State {
  std::string file;
  int fd = -1;
  uint64_t byte_size = 0;
  bool dropped_tail = false;
  JournalContent content;
  ~State() {
    if (fd >= 0) ::close(fd);  // and with it goes the lock
  }

  Status append(const std::string& line) {
    size_t done = 0;
    int failure = 0;
    while (done < line.size() && !failure) {
      const ssize_t n = ::pwrite(fd, line.data() + done, line.size() - done, off_t(byte_size + done));
      if (n >= 0)
        done += size_t(n);
      else if (errno != EINTR)
        failure = errno;
    }
    if (!failure && ::fsync(fd) != 0) failure = errno;
    if (failure) {
      (void)!::ftruncate(fd, off_t(byte_size));
      return Error{failure == ENOSPC || failure == EDQUOT ? ErrorCode::kResourceExhausted : ErrorCode::kIo,
                   std::string("cannot add a result: ") + std::strerror(failure), file,
                   "All results so far are kept. Make room and run the same command again to go on."};
    }
    byte_size += line.size();
    return {};
  }
};

Journal::Journal(std::unique_ptr<State> state) : state_(std::move(state)) {}
Journal::Journal(Journal&&) noexcept = default;
Journal& Journal::operator=(Journal&&) noexcept = default;
Journal::~Journal() = default;

const JournalContent& Journal::content() const {
  return state_->content;
}
bool Journal::dropped_tail() const {
  return state_->dropped_tail;
}

Result<Journal> Journal::open(const std::string& folder) {
  auto state = std::make_unique<State>();
  state->file = (std::filesystem::path(folder) / kFileName).string();
  state->fd = ::open(state->file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
  if (state->fd < 0)
    return Error{ErrorCode::kIo, std::string("cannot open the results: ") + std::strerror(errno), state->file,
                 ""};
  if (::flock(state->fd, LOCK_EX | LOCK_NB) != 0)
    return Error{ErrorCode::kInvalidArgument, "another sweep is writing into this folder", folder,
                 "Wait for it, or choose another folder."};
  ISOLINE_ASSIGN(const std::string text, text_of(state->file));
  ISOLINE_ASSIGN(const size_t whole, parse(text, state->file, state->content));
  state->byte_size = whole;
  if (whole < text.size()) {
    state->dropped_tail = true;
    if (::ftruncate(state->fd, off_t(whole)) != 0)
      return Error{ErrorCode::kIo, std::string("cannot drop an unfinished line: ") + std::strerror(errno),
                   state->file, ""};
  }
  return Journal(std::move(state));
}

Status Journal::append(const SessionEntry& entry) {
  ISOLINE_RETURN_IF_ERROR(state_->append(line_of("session", entry)));
  state_->content.sessions.push_back(entry);
  return {};
}
Status Journal::append(const IdleEntry& entry) {
  ISOLINE_RETURN_IF_ERROR(state_->append(line_of("idle", entry)));
  state_->content.idle.push_back(entry);
  return {};
}
Status Journal::append(const RunEntry& entry) {
  ISOLINE_RETURN_IF_ERROR(state_->append(line_of("run", entry)));
  state_->content.runs.push_back(entry);
  return {};
}

Result<JournalContent> read_journal(const std::string& folder) {
  const std::string file = (std::filesystem::path(folder) / kFileName).string();
  ISOLINE_ASSIGN(const std::string text, text_of(file));
  JournalContent content;
  ISOLINE_ASSIGN([[maybe_unused]] const size_t whole, parse(text, file, content));
  return content;
}

}  // namespace isoline::lab
