"""What /metrics says, read strictly; devices are stand-ins (a false NVML library, a false powercap tree).

usage: metrics_test.py ISOLINE FAKE_NVML SOURCE_DIR
"""
import concurrent.futures
import json
import pathlib
import re
import socket
import sys
import tempfile
import time
import unittest

import exposition
from exposition import value
from server import identity, serving, wait_for

ISOLINE, NVML, SOURCE = sys.argv[1:4]
del sys.argv[1:4]
BODY = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
GPU = "GPU-fake-0000"
# Only where there is a GPU, or a CPU package that may be read.
DEVICE_ONLY = {"nv_gpu_utilization", "nv_gpu_memory_total_bytes", "nv_gpu_memory_used_bytes", "nv_gpu_power_usage", "nv_gpu_power_limit",
               "nv_energy_consumption", "isoline_serving_energy_joules_total", "isoline_joules_per_inference"}
RAPL_ONLY = {"isoline_cpu_package_energy_joules_total", "isoline_cpu_package_power_watts"}


def scrape(server):
    status, headers, text = server.request("/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4"), (status, headers)
    return exposition.parse(text.decode())


class GrpcSocket:
    """Just enough of HTTP/2 to start calls, give them up and see them end."""
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4, 0, 0, b""))
        self.stream = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    @staticmethod
    def frame(kind, flags, stream, payload):
        return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload

    def begin(self, method):
        text = lambda s: bytes((len(s),)) + s.encode()
        self.stream += 2
        # :method POST, :scheme http, then literals: :path, :authority, content-type, te
        head = (b"\x83\x86\x04" + text("/inference.GRPCInferenceService/" + method) + b"\x01" + text("h") + b"\x0f\x10" + text("application/grpc") +
                b"\0" + text("te") + text("trailers"))
        self.socket.sendall(self.frame(1, 4, self.stream, head))

    def call(self, method, message=b""):
        self.begin(method)
        self.socket.sendall(self.frame(0, 1, self.stream, b"\0" + len(message).to_bytes(4, "big") + message))
        while True:  # until the stream ends
            head = self.read(9)
            self.read(int.from_bytes(head[:3], "big"))
            if head[3] in (0, 1) and head[4] & 1 and int.from_bytes(head[5:], "big") == self.stream:
                return

    def give_up(self):
        self.socket.sendall(self.frame(3, 0, self.stream, (8).to_bytes(4, "big")))

    def read(self, n):
        data = b""
        while len(data) < n:
            got = self.socket.recv(n - len(data))
            assert got, "the server closed the connection"
            data += got
        return data


class FalseRapl:
    """A powercap tree with one package whose counter the test sets."""
    def __init__(self, root):
        self.folder = pathlib.Path(root) / "intel-rapl:0"
        self.folder.mkdir()
        for name, text in (("name", "package-0"), ("max_energy_range_uj", "262143328850")):
            (self.folder / name).write_text(text + "\n")
        self.set(1_000_000)

    def set(self, uj):
        with open(self.folder / "energy_uj", "r+" if (self.folder / "energy_uj").exists() else "w") as f:
            f.write(f"{uj:<20}\n")


class Strictness(unittest.TestCase):
    """The reader used below refuses what it should."""
    def test_refuses(self):
        good = "# HELP a h\n# TYPE a counter\na{x=\"1\"} 2\n"
        exposition.parse(good)
        head = "# HELP h h\n# TYPE h histogram\n"
        for bad in (good[:-1], good + good, good + "a{x=\"1\"} 3\n", "a 1\n", good + "b 1\n", good.replace("2", "-2"), good.replace("counter", "count"),
                    good.replace('"1"', '"1'), good + "\n", head + 'h_bucket{le="1"} 3\nh_bucket{le="+Inf"} 2\nh_sum 1\nh_count 2\n',
                    head + 'h_bucket{le="1"} 1\nh_sum 1\nh_count 1\n', head + 'h_bucket{le="+Inf"} 2\nh_sum 1\nh_count 1\n',
                    head + 'h_bucket{le="+Inf"} 2\nh_sum 1\n'):
            with self.assertRaises(Exception, msg=bad):
                exposition.parse(bad)
        with self.assertRaises(AssertionError):
            exposition.check_monotone(exposition.parse(good), exposition.parse(good.replace(" 2", " 1")))


class Metrics(unittest.TestCase):
    def test_requests_by_status_and_monotone(self):
        with serving(ISOLINE, {"m": identity(), "other": identity()}) as server:
            before = scrape(server)
            for _ in range(5):
                self.assertEqual(server.request("/v2/models/m/infer", BODY)[0], 200)
            self.assertEqual(server.request("/v2/models/none/infer", BODY)[0], 404)
            self.assertEqual(server.request("/v2/models/m/infer", b"{")[0], 400)
            after = scrape(server)
            exposition.check_monotone(before, after)
            self.assertEqual(value(after, "isoline_http_responses_total", code="404"), 1)
            self.assertEqual(value(after, "isoline_http_responses_total", code="400"), 1)
            # The scrape itself is answered after it is written.
            self.assertEqual(value(after, "isoline_http_responses_total", code="200"), (value(before, "isoline_http_responses_total", code="200") or 0) + 6)
            self.assertEqual(value(after, "nv_inference_request_success", model="m"), 5)
            self.assertEqual(value(after, "isoline_serving_inferences_total"), 5)
            # An unloaded model takes its own series with it and leaves its inferences in the sum.
            self.assertEqual(server.request("/v2/repository/models/m/unload", b"")[0], 200)
            later = scrape(server)
            self.assertIsNone(value(later, "nv_inference_request_success", model="m"))
            self.assertEqual(value(later, "isoline_serving_inferences_total"), 5)

    def test_queue_batches_and_running(self):
        slow = identity(max_batch=4, delay_ms=1000, extra="dynamic_batching { max_queue_delay_microseconds: 1000 }")
        with serving(ISOLINE, {"m": slow}) as server, concurrent.futures.ThreadPoolExecutor(6) as pool:
            first = pool.submit(server.request, "/v2/models/m/infer", BODY)
            self.assertTrue(wait_for(lambda: value(scrape(server), "isoline_running_executions", model="m") == 1))
            rest = [pool.submit(server.request, "/v2/models/m/infer", BODY) for _ in range(5)]
            self.assertTrue(wait_for(lambda: value(scrape(server), "nv_inference_pending_request_count", model="m") == 5))
            self.assertEqual([f.result()[0] for f in (first, *rest)], [200] * 6)
            seen = scrape(server)
            name = "isoline_inference_batch_size_bucket"
            self.assertEqual([value(seen, name, le=le) for le in ("1", "2", "4", "+Inf")], [2, 2, 3, 3])  # 1, 4 and 1 again
            self.assertEqual(value(seen, "nv_inference_exec_count", model="m"), 3)
            self.assertEqual(value(seen, "nv_inference_pending_request_count", model="m"), 0)
            self.assertGreater(value(seen, "nv_inference_queue_duration_us", model="m"), 5 * 500_000)

    def test_grpc_calls_by_status(self):
        with serving(ISOLINE, {"m": identity()}) as server:
            code = lambda c: value(scrape(server), "isoline_grpc_calls_total", code=c)
            with GrpcSocket(server.grpc) as grpc:
                grpc.call("ServerLive")
                grpc.call("ServerReady")
                grpc.call("Nothing")
                grpc.call("ModelMetadata", b"\x0a\x04none")
                self.assertEqual([code(c) for c in ("OK", "UNIMPLEMENTED", "NOT_FOUND", "CANCELLED")], [2, 1, 1, None])
                grpc.begin("ServerLive")
                grpc.give_up()
                self.assertTrue(wait_for(lambda: code("CANCELLED") == 1))
                grpc.begin("ServerLive")
                grpc.call("ServerLive")  # both have arrived
            self.assertTrue(wait_for(lambda: code("CANCELLED") == 2))  # the connection ended under the other
            self.assertEqual(code("OK"), 3)

    def test_process(self):
        with serving(ISOLINE, {"m": identity()}) as server:
            seen = scrape(server)
            rss = server.rss_kb() * 1024
            self.assertAlmostEqual(value(seen, "process_resident_memory_bytes") / rss, 1, delta=0.2)
            self.assertGreater(value(seen, "process_cpu_seconds_total"), 0)
            self.assertAlmostEqual(value(seen, "process_start_time_seconds"), time.time(), delta=60)
            self.assertEqual(value(seen, "isoline_connections"), 1)

    def test_without_devices_there_are_no_zeros(self):
        with serving(ISOLINE, {"m": identity()}, "--nvml", "/nonexistent/libnvidia-ml.so", "--rapl", "/nonexistent") as server:
            seen = scrape(server)
            for name in DEVICE_ONLY | RAPL_ONLY:
                self.assertNotIn(name, seen)
            sources = seen["isoline_energy_source_available"].samples
            self.assertEqual(list(sources.values()), [0, 0])
            reasons = [dict(labels)["reason"] for _, labels in sources]
            self.assertTrue(any("NVML cannot be loaded" in r for r in reasons), reasons)

    def test_devices(self):
        with tempfile.TemporaryDirectory() as root:
            rapl = FalseRapl(root)
            with serving(ISOLINE, {"m": identity()}, "--nvml", NVML, "--rapl", root) as server:
                first = scrape(server)
                for name, want in (("nv_gpu_utilization", 0.37), ("nv_gpu_memory_total_bytes", 80 << 30), ("nv_gpu_memory_used_bytes", 3 << 30),
                                   ("nv_gpu_power_limit", 700)):
                    self.assertEqual(value(first, name, gpu_uuid=GPU), want, name)
                self.assertIn(value(first, "nv_gpu_power_usage", gpu_uuid=GPU), (100, 300))
                self.assertNotIn("isoline_joules_per_inference", first)  # nothing was inferred yet
                began = time.monotonic()
                energy = value(first, "nv_energy_consumption", gpu_uuid=GPU)
                rapl.set(51_000_000)
                for _ in range(10):
                    server.request("/v2/models/m/infer", BODY)
                name = "isoline_joules_per_inference"
                self.assertTrue(wait_for(lambda: name in scrape(server), 5))
                time.sleep(2.2)
                second = scrape(server)
                seconds = time.monotonic() - began
                exposition.check_monotone(first, second)
                # 200 W on average, in looks of a second.
                used = value(second, "nv_energy_consumption", gpu_uuid=GPU) - energy
                self.assertGreater(used, 200 * (seconds - 2.5))
                self.assertLess(used, 200 * (seconds + 2.5))
                self.assertEqual(value(second, "isoline_cpu_package_energy_joules_total", package="rapl:package-0"), 50)
                self.assertEqual(value(second, name, device="rapl:package-0"), 5)
                per_gpu = value(second, name, device=GPU, kind="gpu") * 10
                self.assertAlmostEqual(per_gpu, value(second, "nv_energy_consumption", gpu_uuid=GPU), delta=0.1)
                serving_j = value(second, "isoline_serving_energy_joules_total", device=GPU)
                self.assertGreater(serving_j, 0)
                self.assertLess(serving_j, value(second, "nv_energy_consumption", gpu_uuid=GPU))
                self.assertEqual(value(second, "isoline_energy_source_available", device=GPU, reason=""), 1)

    def test_dashboard_names_only_metrics_that_exist(self):
        dashboard = json.loads((pathlib.Path(SOURCE) / "deploy/grafana/isoline.json").read_text())
        expressions = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
        self.assertGreaterEqual(len(expressions), 12)
        with tempfile.TemporaryDirectory() as root:
            FalseRapl(root)
            with serving(ISOLINE, {"m": identity()}, "--nvml", NVML, "--rapl", root) as server:
                server.request("/v2/models/m/infer", BODY)
                self.assertTrue(wait_for(lambda: "isoline_joules_per_inference" in scrape(server), 5))
                families = scrape(server)
                known = {n for f in families.values() for n, _ in f.samples} | set(families)
                text = server.request("/metrics")[2].decode()
        used = {n for e in expressions for n in re.findall(r"\b(?:nv|isoline|process)_[a-z0-9_]+", e)}
        self.assertGreater(len(used), 15)
        self.assertEqual(used - known, set())
        for wanted in ("isoline_inference_request_duration_seconds_bucket", "nv_inference_pending_request_count", "isoline_inference_batch_size_bucket",
                       "nv_gpu_power_usage", "nv_inference_request_failure", "isoline_serving_energy_joules_total"):
            self.assertIn(wanted, used)
        for e in expressions:  # balanced, and every label it selects by is one that some sample has
            self.assertEqual((e.count("("), e.count("{")), (e.count(")"), e.count("}")), e)
        labels = {l for e in expressions for group in re.findall(r"\bby ?\(([^)]*)\)", e) for l in re.split(r",\s*", group)}
        for l in labels - {"instance"}:
            self.assertIn(f'{l}="', text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
