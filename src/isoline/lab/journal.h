// Journal: the append-only record of a run, one JSON object a line, each on disk before the next piece of
// work.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/measure/reading.h"

namespace isoline::lab {

// One sitting: `sweep` started or went on.
struct SessionEntry {
  std::string started;  // UTC
  std::string isoline_version, commit;
  std::map<std::string, std::string> device;  // see machine_facts(), and of each GPU
  std::vector<std::string> energy_sources;    // what can be read, and why the rest cannot
  std::map<std::string, std::string> meter;   // calibration
};

// Idle power, W, in one state.
struct IdleEntry {
  std::string started, state;  // "cold" | "context alive"
  double seconds = 0;
  Reading gpu_w, cpu_w;
};

struct RegionScores {
  double dice = 0;                     // both empty: 1
  std::optional<double> dice_nnunet;   // both empty: unset
  std::optional<double> surface_dice;  // both empty: 1; unset: not asked for
  std::optional<double> hd95_mm;       // unset: not asked for, or one side empty
  bool hd95_infinite = false;          // one side empty
  double reference_mm3 = 0, predicted_mm3 = 0;
};

// One case under one setting, once.
struct RunEntry {
  std::string started, setting, case_id;
  int repetition = 0;
  std::string error;                 // empty: it went well, and all that follows is set
  std::string runtime, device_kind;  // device_kind: "cpu" | "gpu"
  double wall_s = 0;                 // boundary as RunSummary::boundary
  std::map<std::string, double> stages_s;
  int64_t windows = 0, forwards = 0;
  std::vector<double> forward_ms;
  double meter_wall_s = 0;  // of the energy window, which includes a request to the worker
  Reading cpu_s, peak_rss_bytes, peak_vram_bytes;
  Reading energy_gross_j, energy_integrated_j, energy_uncertainty_j, average_power_w, peak_power_w;  // GPUs
  Reading cpu_energy_j;
  Reading temperature_max_c, sm_clock_mean_mhz;
  bool throttled = false;
  std::vector<std::string> throttle_reasons;
  std::vector<std::string> warnings;
  std::string labels_sha256;  // of the voxels
  std::map<std::string, RegionScores> regions;
  std::map<std::string, std::vector<int>> lesions_found;  // by region: 1 or 0 per reference lesion
  std::map<std::string, int> lesions_false_positive;
};

struct JournalContent {
  std::vector<SessionEntry> sessions;
  std::vector<IdleEntry> idle;
  std::vector<RunEntry> runs;
};

// Holds a lock on the run folder until destroyed.
class Journal {
 public:
  // Opens or begins FOLDER/results.jsonl. A line that was cut short by a crash at the very end is dropped
  // (and `dropped_tail` says so); any other line that is not what its checksum says is kCorrupt with its
  // number, and the file is left as it is. kInvalidArgument: another sweep writes into this folder.
  static Result<Journal> open(const std::string& folder);
  Journal(Journal&&) noexcept;
  Journal& operator=(Journal&&) noexcept;
  ~Journal();

  const JournalContent& content() const;
  bool dropped_tail() const;
  // On disk (fsync) when it returns. kResourceExhausted (disk full), kIo: the file ends where it ended
  // before.
  Status append(const SessionEntry& entry);
  Status append(const IdleEntry& entry);
  Status append(const RunEntry& entry);

 private:
  struct State;
  explicit Journal(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The same without writing or locking, for summaries of finished or running sweeps.
Result<JournalContent> read_journal(const std::string& folder);

}  // namespace isoline::lab
