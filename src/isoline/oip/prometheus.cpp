#include "isoline/oip/prometheus.h"

#include <charconv>
#include <iterator>
#include <optional>

namespace isoline::oip {
namespace {

void append(std::string& out, double value) {
  char text[40];
  const auto r = std::to_chars(text, text + sizeof text, value);
  out.append(text, size_t(r.ptr - text));
}

class Family {
 public:
  Family(std::string& out, const char* name, const char* type, const char* help) : out_(out), name_(name) {
    out_ += std::string("# HELP ") + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
  }
  void value(const std::string& labels, uint64_t v, const char* suffix = "") {
    out_ += name_ + suffix + labels + " " + std::to_string(v) + "\n";
  }
  void real(const std::string& labels, double v, const char* suffix = "") {
    out_ += name_ + suffix + labels + " ";
    append(out_, v);
    out_ += "\n";
  }

 private:
  std::string& out_;
  std::string name_;
};

void single(std::string& out, const char* name, const char* type, const char* help, uint64_t v) {
  Family(out, name, type, help).value("", v);
}

std::string label(const char* name, const std::string& value) {
  std::string out = std::string(name) + "=\"";
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return out + "\"";
}

const char* grpc_code(int code) {
  static constexpr const char* kCodes[] = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  return code >= 0 && size_t(code) < std::size(kCodes) ? kCodes[code] : "UNKNOWN";
}

void write_transport(std::string& out, const TransportFigures& transport) {
  single(out, "isoline_connections", "gauge", "Open connections", transport.connections);
  single(out, "isoline_connections_total", "counter", "Connections accepted", transport.connections_total);
  single(out, "isoline_requests_total", "counter", "Requests that arrived whole, of any kind",
         transport.requests_total);
  single(out, "isoline_rejected_total", "counter", "Connections and requests refused for a limit",
         transport.rejected_total);
  single(out, "isoline_request_bytes_in_flight", "gauge", "Bytes of requests and waiting answers held",
         transport.bytes_in_flight);
  {
    Family f(out, "isoline_http_responses_total", "counter", "HTTP answers by status");
    for (const auto& [status, n] : transport.http_responses)
      f.value("{code=\"" + std::to_string(status) + "\"}", n);
  }
  Family f(out, "isoline_grpc_calls_total", "counter", "gRPC calls that ended, by status");
  for (const auto& [code, n] : transport.grpc_calls)
    f.value(std::string("{code=\"") + grpc_code(code) + "\"}", n);
}

void write_process(std::string& out, const HostFigures& host) {
  const auto reading = [&](const char* name, const char* type, const char* help, const Reading& r) {
    if (r.ok()) Family(out, name, type, help).real("", *r);
  };
  reading("process_resident_memory_bytes", "gauge", "Resident memory of the server", host.rss_bytes);
  reading("process_cpu_seconds_total", "counter", "CPU time of the server, user and system", host.cpu_s);
  reading("process_start_time_seconds", "gauge", "When the server started, in seconds since 1970",
          host.start_time_s);
  single(out, "isoline_serving_inferences_total", "counter",
         "Inferences (samples) of all models, those unloaded since too", host.inferences);
}

// Families appear only where a device has the figure.
void write_devices(std::string& out, const HostFigures& host) {
  using measure::DeviceUse;
  const auto family = [&](const char* name, const char* type, const char* help, Reading DeviceUse::*figure,
                          auto labels) {
    std::optional<Family> f;
    for (const DeviceUse& d : host.devices) {
      const std::string inner = labels(d);
      const Reading& r = d.*figure;
      if (inner.empty() || !r.ok()) continue;
      if (!f) f.emplace(out, name, type, help);
      f->real("{" + inner + "}", *r);
    }
  };
  const auto gpu = [](const DeviceUse& d) {
    return d.kind == measure::kKindGpu ? label("gpu_uuid", d.id) : std::string();
  };
  const auto package = [](const DeviceUse& d) {
    return d.kind == measure::kKindCpuPackage ? label("package", d.id) : std::string();
  };
  const auto any = [](const DeviceUse& d) { return label("device", d.id) + "," + label("kind", d.kind); };
  family("nv_gpu_utilization", "gauge", "Share of time the GPU was busy, 0.0 to 1.0", &DeviceUse::utilization,
         gpu);
  family("nv_gpu_memory_total_bytes", "gauge", "GPU memory", &DeviceUse::memory_total_bytes, gpu);
  family("nv_gpu_memory_used_bytes", "gauge", "GPU memory in use, by any process",
         &DeviceUse::memory_used_bytes, gpu);
  family("nv_gpu_power_usage", "gauge", "GPU power in watts", &DeviceUse::power_w, gpu);
  family("nv_gpu_power_limit", "gauge", "GPU power limit in watts", &DeviceUse::power_limit_w, gpu);
  family("nv_energy_consumption", "counter",
         "GPU energy in joules since the server started, by the board's counter", &DeviceUse::energy_j, gpu);
  family("isoline_cpu_package_energy_joules_total", "counter",
         "CPU package energy since the server started (RAPL; without memory and board)", &DeviceUse::energy_j,
         package);
  family("isoline_cpu_package_power_watts", "gauge", "CPU package power, mean of the last second",
         &DeviceUse::power_w, package);
  family("isoline_serving_energy_joules_total", "counter",
         "Energy of the whole device in those seconds in which an inference ran or ended: idle power and "
         "whatever else uses the device meanwhile are in it. Divide its increase by that of "
         "isoline_serving_inferences_total",
         &DeviceUse::working_energy_j, any);
  family(
      "isoline_joules_per_inference", "gauge",
      "Energy of the whole device over the last minute, idle and other users of the device included, divided "
      "by all inferences (samples) of this server in it; absent without any",
      &DeviceUse::energy_per_work_j, any);
  if (host.devices.empty() && host.unavailable.empty()) return;
  Family f(out, "isoline_energy_source_available", "gauge",
           "1: the energy of this device is read; 0: it is not, for the reason given");
  for (const DeviceUse& d : host.devices)
    f.value("{" + any(d) + "," + label("reason", d.energy_j.ok() ? "" : d.energy_j.reason) + "}",
            d.energy_j.ok() ? 1 : 0);
  for (const auto& u : host.unavailable)
    f.value("{" + label("device", u.id) + "," + label("kind", u.kind) + "," + label("reason", u.reason) + "}",
            0);
}

}  // namespace

std::string write_metrics(const std::vector<std::shared_ptr<serve::ServedModel>>& models,
                          const TransportFigures& transport, const HostFigures& host) {
  struct Row {
    std::string inner;  // labels without braces; model names need no escaping (check_model_name)
    serve::StatisticsSnapshot s;
    uint64_t waiting, running;
  };
  std::vector<Row> rows;
  for (const auto& m : models)
    rows.push_back({"model=\"" + m->name() + "\",version=\"" + m->version() + "\"", m->statistics(),
                    m->waiting(), m->running()});

  std::string out;
  const auto counter = [&](const char* name, const char* help, auto value) {
    Family f(out, name, "counter", help);
    for (const Row& r : rows) f.value("{" + r.inner + "}", value(r.s));
  };
  using S = const serve::StatisticsSnapshot&;
  counter("nv_inference_request_success", "Number of successful inference requests",
          [](S s) { return s.success.count; });
  {
    Family f(out, "nv_inference_request_failure", "counter",
             "Number of failed inference requests, by reason");
    for (const Row& r : rows)
      for (size_t i = 0; i < serve::kFailureReasons.size(); ++i)
        f.value("{" + r.inner + ",reason=\"" + serve::kFailureReasons[i] + "\"}", r.s.failures[i]);
  }
  counter("nv_inference_count", "Number of inferences performed (samples)",
          [](S s) { return s.inference_count; });
  counter("nv_inference_exec_count", "Number of model executions", [](S s) { return s.execution_count; });
  counter("nv_inference_request_duration_us", "Cumulative request duration in microseconds",
          [](S s) { return s.success.ns / 1000; });
  counter("nv_inference_queue_duration_us", "Cumulative queue duration in microseconds",
          [](S s) { return s.queue.ns / 1000; });
  counter("nv_inference_compute_input_duration_us", "Cumulative duration of gathering inputs in microseconds",
          [](S s) { return s.compute_input.ns / 1000; });
  counter("nv_inference_compute_infer_duration_us",
          "Cumulative duration of running the model in microseconds",
          [](S s) { return s.compute_infer.ns / 1000; });
  counter("nv_inference_compute_output_duration_us",
          "Cumulative duration of handing out outputs in microseconds",
          [](S s) { return s.compute_output.ns / 1000; });
  {
    Family f(out, "nv_inference_pending_request_count", "gauge", "Requests that wait in the queue");
    for (const Row& r : rows) f.value("{" + r.inner + "}", r.waiting);
  }
  {
    Family f(out, "isoline_running_executions", "gauge", "Instances that run the model now");
    for (const Row& r : rows) f.value("{" + r.inner + "}", r.running);
  }

  const auto histogram = [&](const char* name, const char* help, auto pick) {
    Family f(out, name, "histogram", help);
    for (const Row& r : rows) {
      const serve::Histogram& h = pick(r.s);
      const auto counts = h.cumulative();
      for (size_t i = 0; i < counts.size(); ++i) {
        std::string bound;
        if (i < h.upper_bounds().size())
          append(bound, h.upper_bounds()[i]);
        else
          bound = "+Inf";
        f.value("{" + r.inner + ",le=\"" + bound + "\"}", counts[i], "_bucket");
      }
      f.real("{" + r.inner + "}", h.sum(), "_sum");
      f.value("{" + r.inner + "}", counts.back(), "_count");
    }
  };
  histogram("isoline_inference_request_duration_seconds", "From the last byte of the request to its answer",
            [](S s) -> const serve::Histogram& { return s.request_s; });
  histogram("isoline_inference_queue_duration_seconds", "Waiting for an instance or for company",
            [](S s) -> const serve::Histogram& { return s.queue_s; });
  histogram("isoline_inference_compute_duration_seconds",
            "Running the model, of the batch the request was in",
            [](S s) -> const serve::Histogram& { return s.compute_s; });
  histogram("isoline_inference_batch_size", "Samples of one execution",
            [](S s) -> const serve::Histogram& { return s.batch_size; });

  write_transport(out, transport);
  write_process(out, host);
  write_devices(out, host);
  return out;
}

}  // namespace isoline::oip
