#include "isoline/oip/prometheus.h"

#include <charconv>

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

}  // namespace

std::string write_metrics(const std::vector<std::shared_ptr<serve::ServedModel>>& models,
                          const TransportFigures& transport) {
  struct Row {
    std::string inner;  // labels without braces; model names need no escaping (check_model_name)
    serve::StatisticsSnapshot s;
    uint64_t waiting;
  };
  std::vector<Row> rows;
  for (const auto& m : models)
    rows.push_back(
        {"model=\"" + m->name() + "\",version=\"" + m->version() + "\"", m->statistics(), m->waiting()});

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

  const auto single = [&](const char* name, const char* type, const char* help, uint64_t v) {
    Family(out, name, type, help).value("", v);
  };
  single("isoline_connections", "gauge", "Open connections", transport.connections);
  single("isoline_connections_total", "counter", "Connections accepted", transport.connections_total);
  single("isoline_requests_total", "counter", "Requests that arrived whole, of any kind",
         transport.requests_total);
  single("isoline_rejected_total", "counter", "Connections and requests refused for a limit",
         transport.rejected_total);
  single("isoline_request_bytes_in_flight", "gauge", "Bytes of request bodies held",
         transport.bytes_in_flight);
  return out;
}

}  // namespace isoline::oip
