"""`isoline bench` against `isoline serve` and models of its own process: counts, loops, protocols, TLS, comparison."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from server import identity, serving, write_model

ISOLINE = sys.argv.pop(1)
SOURCE = pathlib.Path(sys.argv.pop(1))
FAKE_NVML = sys.argv.pop(1)
QUICK = ("--warmup", "0.1", "--window", "0.2", "--max-windows", "3")
# Stability is a matter of the machine; nothing here rests on it.


def bench(*arguments, code=0, env=None):
    """The result as JSON, or what was said where it had to fail."""
    done = subprocess.run([ISOLINE, "bench", *map(str, arguments), *QUICK, "--json"], capture_output=True, text=True, timeout=120,
                          env={**os.environ, **(env or {})})
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout) if code == 0 else done.stderr


def stats(server, model):
    return server.json(f"/v2/models/{model}/stats")[1]["model_stats"][0]


class Loads(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.context = serving(ISOLINE, {
            "m": identity(dims="16"), "slow": identity(max_batch=1, dims="4", delay_ms=20), "open": identity(),
            "all": identity(dims="2, 3", type="TYPE_STRING"), "half": identity(max_batch=0, type="TYPE_FP16", dims="5"),
            "strict": identity(max_batch=1, dims="4", delay_ms=20,
                               extra="dynamic_batching { default_queue_policy { max_queue_size: 1 } }"),
        })
        cls.server = cls.context.__enter__()
        cls.urls = {"HTTP/1.1": cls.server.url, "gRPC": f"grpc://127.0.0.1:{cls.server.grpc}"}

    @classmethod
    def tearDownClass(cls):
        cls.context.__exit__(None, None, None)

    def test_counts_agree_with_the_servers(self):
        for protocol, url in self.urls.items():
            before = stats(self.server, "m")
            result = bench(url, "-m", "m", "--concurrency", "1,3", "--batch", "1,4")
            after = stats(self.server, "m")
            self.assertEqual(result["protocol"], protocol)
            self.assertEqual([(p["batch"], p["concurrency"]) for p in result["points"]], [(1, 1), (1, 3), (4, 1), (4, 3)])
            for p in result["points"]:
                self.assertEqual(p["errors"], {})
                self.assertEqual(p["sent"], p["answered"])
                self.assertEqual(p["server_requests"]["value"], p["answered"])
                self.assertEqual(p["server_inferences"]["value"], p["answered"] * p["batch"])
                self.assertGreater(p["latency_ms"]["n"], 0)
                self.assertLess(p["latency_ms"]["n"], p["answered"])  # warm-up does not count
                self.assertAlmostEqual(p["inferences_per_s"]["value"], p["requests_per_s"]["value"] * p["batch"])
                # A closed loop: latency x throughput = requests under way.
                self.assertAlmostEqual(p["latency_ms"]["mean"]["value"] * p["requests_per_s"]["value"] / 1000,
                                       p["concurrency"], delta=.15 * p["concurrency"])
                parts = {k: v["value"] for k, v in p["parts_ms"].items() if v["value"] is not None}
                self.assertAlmostEqual(sum(parts.values()), p["latency_ms"]["mean"]["value"],
                                       delta=.02 * p["latency_ms"]["mean"]["value"])
                quantiles = [q["ms"]["value"] for q in p["latency_ms"]["quantiles"]]
                self.assertEqual(quantiles, sorted(quantiles))
            # Nothing but the measured requests and the first one of each load was sent.
            counted = after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"]
            self.assertEqual(counted, sum(p["answered"] for p in result["points"]) + len(result["points"]))
            self.assertEqual(result["remarks"], [p for p in result["remarks"] if "not stable" in p])
            self.assertGreater(result["round_trip_ms"]["value"], 0)

    # 20 ms a request at 100 a second: twice what it can do. From the intended start, latency grows by half of the time
    # that passes; from the sending it would stay at 20 ms times the connections.
    def test_open_loop_counts_from_the_intended_start(self):
        for url in self.urls.values():
            p = bench(url, "-m", "slow", "--rate", "100", "--arrivals", "constant", "--max-connections", "1")["points"][0]
            self.assertEqual((p["mode"], p["rate"]), ("open", 100))
            self.assertGreater(p["latency_ms"]["max"], 100)
            self.assertLess(p["requests_per_s"]["value"], 60)
            self.assertFalse(p["stable"])
            if url.startswith("http"):  # one connection: what is due waits here
                self.assertGreater(p["late_ms_p99"]["value"], 80)
                self.assertGreater(p["parts_ms"]["client_wait"]["value"], 30)
        p = bench(self.server.url, "-m", "slow", "--rate", "20", "--arrivals", "constant")["points"][0]
        self.assertEqual(p["errors"], {})
        self.assertAlmostEqual(p["requests_per_s"]["value"], 20, delta=5)

    def test_rejections_are_counted_by_status_and_are_no_latency(self):
        for url, status in ((self.server.url, "HTTP 503"), (self.urls["gRPC"], "gRPC 14")):
            p = bench(url, "-m", "strict", "--concurrency", "8")["points"][0]
            self.assertEqual(list(p["errors"]), [status])
            self.assertEqual(p["sent"], p["answered"] + p["errors"][status])
            self.assertGreater(p["errors"][status], p["answered"])
            self.assertGreaterEqual(p["latency_ms"]["min"], 20)
            self.assertEqual(p["server_requests"]["value"], p["answered"])
            self.assertTrue(p["error_examples"][status])

    def test_types_and_shapes(self):
        for url in self.urls.values():
            self.assertEqual(bench(url, "-m", "all", "--batch", "2", "--string-bytes", "3")["request_bytes"], 6 * (4 + 3))
            self.assertEqual(bench(url, "-m", "half", "--data", "zero")["request_bytes"], 10)
            self.assertIn("--shape INPUT0:D", bench(url, "-m", "open", code=2))
            self.assertEqual(bench(url, "-m", "open", "--shape", "INPUT0:7")["request_bytes"], 28)
            self.assertIn("batch 9", bench(url, "-m", "m", "--batch", "9", code=2))
            bench(url, "-m", "none", code=3)
        self.assertIn("model", bench(self.server.url, code=2))
        bench("http://127.0.0.1:1", "-m", "m", code=7)
        # The wrong protocol's port is an error and no hang.
        bench(f"http://127.0.0.1:{self.server.grpc}", "-m", "m", "--timeout", "2", code=7)
        bench(f"grpc://127.0.0.1:{self.server.http}", "-m", "m", "--timeout", "2", code=7)

    def test_compare(self):
        with tempfile.TemporaryDirectory() as folder:
            files = [os.path.join(folder, n) for n in ("rest.json", "grpc.json", "half.json")]
            page = os.path.join(folder, "page.html")
            bench(self.server.url, "-m", "m", "--concurrency", "1,2", "-o", files[0], "--price-per-hour", "1", "--html", page)
            bench(self.urls["gRPC"], "-m", "m", "--concurrency", "2", "-o", files[1], "--price-per-hour", "1000")
            bench(self.server.url, "-m", "half", "-o", files[2])
            with open(page) as f:
                html = f.read()
            self.assertIn("batch 1, 2 at once", html)
            self.assertNotIn("<script", html)
            # Stability is the machine's: said here, so that what is recommended is known.
            for name in files[:2]:
                with open(name) as f:
                    result = json.load(f)
                for p in result["points"]:
                    p["stable"] = True
                with open(name, "w") as f:
                    json.dump(result, f)

            def compare(*arguments):
                done = subprocess.run([ISOLINE, "compare", *arguments, "--json"], capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 0, done.stderr)
                return json.loads(done.stdout)
            c = compare(*files[:2])
            self.assertEqual(c["results"], ["rest", "grpc"])
            self.assertEqual(c["not_comparable"], [])
            self.assertEqual([(r["load"], len(r["results"])) for r in c["loads"]], [("batch 1, 1 at once", 1), ("batch 1, 2 at once", 2)])
            first, second = c["loads"][1]["results"]
            self.assertAlmostEqual(second["throughput_x"]["value"], second["inferences_per_s"] / first["inferences_per_s"])
            self.assertEqual(c["recommendation"]["result"], "rest")  # a thousandth of the price
            self.assertIsNone(compare(*files[:2], "--max-p99-ms", "0.000001")["recommendation"]["result"])
            c = compare(files[0], files[2])
            self.assertIn("other models", c["not_comparable"][0])
            self.assertIsNone(c["recommendation"]["result"])
            text = subprocess.run([ISOLINE, "compare", files[0], SOURCE / "docs/reference/step-6a-rtx4080.json"],
                                  capture_output=True, text=True, timeout=60)
            self.assertEqual(text.returncode, 0, text.stderr)
            self.assertIn("PyTorch FastAPI", text.stdout)
            self.assertIn("ratios only", text.stdout)


class InProcess(unittest.TestCase):
    def test_core_and_bare(self):
        with tempfile.TemporaryDirectory() as root:
            write_model(root, "m", identity(dims="16", delay_ms=5, extra="dynamic_batching {}"))
            p = bench(os.path.join(root, "m"), "--concurrency", "4")
            self.assertEqual((p["protocol"], p["server_name"]), ("in-process", "isoline"))
            point = p["points"][0]
            self.assertEqual(point["server_requests"]["value"], point["answered"])
            self.assertLess(point["server_executions"]["value"], point["answered"])  # batches came of it
            self.assertGreater(point["parts_ms"]["compute_infer"]["value"], 5)
            p = bench(os.path.join(root, "m"), "--concurrency", "2", "--bare", "--batch", "8")
            point = p["points"][0]
            self.assertEqual(p["protocol"], "session")
            self.assertGreater(point["latency_ms"]["min"], 5)
            self.assertLess(point["requests_per_s"]["value"], 400)  # two sessions of at most 200 a second
            self.assertIsNone(point["parts_ms"]["queue"]["value"])
            self.assertIn("statistics", point["parts_ms"]["queue"]["reason"])
            bench(os.path.join(root, "none"), code=3)


    # Two GPUs of 200 W on average, as a driver would report them: energy per inference = power / throughput.
    def test_energy_and_price(self):
        with tempfile.TemporaryDirectory() as root:
            write_model(root, "m", identity(dims="16", delay_ms=5))
            os.symlink(FAKE_NVML, os.path.join(root, "libnvidia-ml.so.1"))
            model = os.path.join(root, "m")
            r = bench(model, "--price-per-hour", "3.6", env={"LD_LIBRARY_PATH": root})
            p = r["points"][0]
            rate = p["inferences_per_s"]["value"]
            self.assertIn("Fake H100", r["device"])
            self.assertAlmostEqual(p["gpu_power_w"]["value"], 400, delta=150)  # a square wave; windows hold no whole number of it
            self.assertAlmostEqual(p["j_per_1000"]["value"], 1000 * p["gpu_power_w"]["value"] / rate, delta=1e-6 * p["j_per_1000"]["value"])
            self.assertAlmostEqual(p["price_per_1000"]["value"], 1 / rate)
            self.assertGreater(p["peak_vram_bytes"]["value"], 0)
            p = bench(model, "--no-meter", env={"LD_LIBRARY_PATH": root})["points"][0]
            self.assertIsNone(p["j_per_1000"]["value"])
            self.assertIn("--no-meter", p["j_per_1000"]["reason"])
            self.assertIsNone(p["price_per_1000"]["value"])


class Access(unittest.TestCase):
    def test_token_and_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            key, certificate, tokens = (os.path.join(folder, n) for n in ("key.pem", "cert.pem", "tokens"))
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                            "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                           check=True, capture_output=True)
            with open(tokens, "w") as f:
                f.write("# tokens\n0123456789abcdef0123\n")
            options = ("--tls-certificate", certificate, "--tls-key", key, "--token-file", tokens)
            with serving(ISOLINE, {"m": identity(dims="300000")}, *options) as server:
                for url in (f"https://localhost:{server.http}", f"grpcs://localhost:{server.grpc}"):
                    result = bench(url, "-m", "m", "--concurrency", "2", "--token-file", tokens, "--ca-file", certificate)
                    self.assertTrue(result["tls"])
                    self.assertEqual(result["points"][0]["errors"], {})
                    self.assertIn("--token-file", bench(url, "-m", "m", "--ca-file", certificate, code=7))
                    bench(url, "-m", "m", "--token-file", tokens, code=7)  # nobody vouches for the certificate
                    # It is for another name; unless nobody looks.
                    other = url.replace("localhost", "127.0.0.1")
                    bench(other, "-m", "m", "--token-file", tokens, "--ca-file", certificate, code=7)
                    bench(other, "-m", "m", "--token-file", tokens, "--any-certificate")


if __name__ == "__main__":
    unittest.main()
