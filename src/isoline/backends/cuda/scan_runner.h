// CudaScanRunner: whole scans on one device; the scan passes (scan_passes.h) around the sessions of all
// folds.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "isoline/backends/cuda/batch_chooser.h"
#include "isoline/backends/cuda/device.h"
#include "isoline/backends/cuda/scan_tables.h"
#include "isoline/backends/cuda/session.h"
#include "isoline/engine/scan_runner.h"

namespace isoline::cuda {

class CudaScanRunner final : public ScanRunner {
 public:
  static Result<std::unique_ptr<CudaScanRunner>> create(std::vector<NetworkGraph> folds,
                                                        const ScanRunnerOptions& options,
                                                        const DeviceInfo& device);
  ~CudaScanRunner() override;
  Status run(const ScanRequest& request, ScanReport* report) override;
  Result<std::vector<LayerTime>> layer_times(int runs) override;
  std::string description() const override;

 private:
  struct Scan;  // one run
  CudaScanRunner(std::vector<NetworkGraph> folds, const ScanRunnerOptions& options, const DeviceInfo& device);
  Status prepare();
  Status choose_batch(const Scan& scan, ScanReport* report);
  // Device memory that sessions of this batch take, as far as can be told beforehand.
  Result<uint64_t> session_bytes(int batch) const;
  Result<uint64_t> free_for_scans() const;  // what scan buffers may take in all
  Status send(const std::byte* from, size_t bytes, std::byte* to);
  Status preprocess(const ScanRequest& request, Scan& scan);
  // start: of run(), from which the report's spans count.
  Status run_folds(const ScanRequest& request, Scan& scan, std::chrono::steady_clock::time_point start,
                   ScanReport* report);

  std::vector<NetworkGraph> graphs_;  // until the sessions are those of the largest batch
  ScanRunnerOptions options_;
  DeviceInfo device_;
  int heads_ = 0, channels_ = 0;
  int batch_ = 0;
  BatchChooser chooser_;
  std::vector<std::unique_ptr<CudaSession>> sessions_;
  Buffer<half_t> gaussian_;  // of the patch
  ThreadPool pool_;
  Stream stream_;
  DeviceMemory prepared_;  // the volume on the network's grid, or a ring of its planes
  DeviceMemory work_;      // scratch of preprocessing; then sums, finished planes and labels
  DeviceMemory tables_, folds_;
  PinnedMemory staging_[2], results_, flags_host_, folds_host_;
  Event sent_[2];
  DeviceMemory flags_;
  int next_staging_ = 0;
};

}  // namespace isoline::cuda
