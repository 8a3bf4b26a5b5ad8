"""The server through plain HTTP: protocol, batching, queues, cancelling, draining, TLS, tokens. Standard library only."""
import concurrent.futures
import gzip
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
import zlib

from server import identity, serving, wait_for, write_model

ISOLINE = sys.argv.pop(1)


def tensor(values, shape=None, name="INPUT0", datatype="FP32"):
    return {"name": name, "datatype": datatype, "shape": shape or [1, len(values)], "data": values}


def stats(server, model):
    return server.json(f"/v2/models/{model}/stats")[1]["model_stats"][0]


class Protocol(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.context = serving(ISOLINE, {
            "simple": identity(), "text": identity(type="TYPE_STRING"), "ints": identity(max_batch=0, type="TYPE_INT8", dims="2, 2"),
            "many": (identity(extra="version_policy { all {} }"), [1, 3]), "half": identity(type="TYPE_FP16"),
        })
        cls.server = cls.context.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.context.__exit__(None, None, None)

    def infer(self, model, body, headers={}):
        return self.server.request(f"/v2/models/{model}/infer", body, headers)

    def infer_json(self, model, body):
        status, _, answer = self.infer(model, body)
        return status, json.loads(answer)

    def test_health_and_metadata(self):
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/simple/ready", "/v2/models/many/versions/3/ready"):
            self.assertEqual(self.server.request(path)[0], 200, path)
        status, meta = self.server.json("/v2")
        self.assertEqual((status, meta["name"]), (200, "isoline"))
        self.assertIn("statistics", meta["extensions"])
        _, meta = self.server.json("/v2/models/simple")
        self.assertEqual(meta["inputs"], [{"name": "INPUT0", "datatype": "FP32", "shape": [-1, -1]}])
        _, meta = self.server.json("/v2/models/ints")
        self.assertEqual(meta["inputs"][0]["shape"], [2, 2])
        _, meta = self.server.json("/v2/models/many")
        self.assertEqual(meta["versions"], ["1", "3"])
        _, config = self.server.json("/v2/models/simple/config")
        self.assertEqual((config["max_batch_size"], config["input"][0]["data_type"], config["input"][0]["dims"]), (8, "TYPE_FP32", [-1]))
        self.assertNotIn("dynamic_batching", config)

    def test_json_flat_and_nested(self):
        status, answer = self.infer_json("simple", {"id": "a\"b", "inputs": [tensor([1.5, -2, 3e5, 0.1], [2, 2])]})
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["id"], "a\"b")
        self.assertEqual(answer["outputs"], [{"name": "OUTPUT0", "datatype": "FP32", "shape": [2, 2], "data": [1.5, -2, 300000, 0.1]}])
        nested = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}]}
        self.assertEqual(self.infer_json("simple", nested)[1]["outputs"][0]["data"], [1, 2, 3, 4])
        self.assertEqual(self.infer_json("many", nested)[1]["model_version"], "3")
        status, _, answer = self.server.request("/v2/models/many/versions/1/infer", nested)
        self.assertEqual(json.loads(answer)["model_version"], "1")
        data = [[-128, 127], [0, 1]]
        self.assertEqual(self.infer_json("ints", {"inputs": [tensor(data, [2, 2], datatype="INT8")]})[1]["outputs"][0]["data"],
                         [-128, 127, 0, 1])
        words = ["", "héllo", "\u0001\n\\\"", "😀"]
        self.assertEqual(self.infer_json("text", {"inputs": [tensor(words, datatype="BYTES")]})[1]["outputs"][0]["data"], words)

    def binary(self, model, data, datatype="FP32", shape=None, **more):
        head = json.dumps({"inputs": [{"name": "INPUT0", "datatype": datatype, "shape": shape or [1, len(data) // 4],
                                       "parameters": {"binary_data_size": len(data)}}], **more}).encode()
        return head + data, {"Inference-Header-Content-Length": str(len(head))}

    def test_binary(self):
        data = struct.pack("<5f", 1, 2, 3, float("nan"), float("inf"))
        body, headers = self.binary("simple", data, parameters={"binary_data_output": True})
        status, h, answer = self.infer("simple", body, headers)
        n = int(h["Inference-Header-Content-Length"])
        meta = json.loads(answer[:n])
        self.assertEqual((status, meta["outputs"][0]["parameters"], answer[n:]), (200, {"binary_data_size": 20}, data))
        # NaN as JSON is refused, not written as something else.
        body, headers = self.binary("simple", data)
        self.assertEqual(self.infer("simple", body, headers)[0], 501)
        half, headers = self.binary("half", b"\0\x3c" * 4, "FP16", [1, 4], outputs=[{"name": "OUTPUT0", "parameters": {"binary_data": True}}])
        self.assertTrue(self.infer("half", half, headers)[2].endswith(b"\0\x3c" * 4))

    def test_raw(self):
        data = struct.pack("<3f", 1, 2, 3)
        status, h, answer = self.infer("simple", data, {"Inference-Header-Content-Length": "0"})
        self.assertEqual(status, 200)
        self.assertEqual(answer[int(h["Inference-Header-Content-Length"]):], data)

    def test_large_both_ways(self):
        data = os.urandom(1 << 20) * 20
        body, headers = self.binary("text", struct.pack("<I", len(data)) + data, "BYTES", [1, 1], parameters={"binary_data_output": True})
        status, h, answer = self.infer("text", body, headers)
        self.assertEqual(status, 200, answer[:200])
        self.assertEqual(answer[int(h["Inference-Header-Content-Length"]) + 4:], data)

    def test_compressed(self):
        plain = json.dumps({"inputs": [tensor([1, 2, 3])]}).encode()
        for coding, body in (("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain))):
            status, h, answer = self.infer("simple", body, {"Content-Encoding": coding, "Accept-Encoding": coding})
            self.assertEqual((status, h["Content-Encoding"]), (200, coding))
            answer = gzip.decompress(answer) if coding == "gzip" else zlib.decompress(answer)
            self.assertEqual(json.loads(answer)["outputs"][0]["data"], [1, 2, 3])
        self.assertEqual(self.infer("simple", plain, {"Content-Encoding": "br"})[0], 415)
        self.assertEqual(self.infer("simple", plain, {"Content-Encoding": "gzip"})[0], 400)

    def test_memory_of_answered_requests_is_given_back(self):
        data = os.urandom(1 << 20)
        body, headers = self.binary("text", struct.pack("<I", len(data)) + data, "BYTES", [1, 1], parameters={"binary_data_output": True})
        for _ in range(10):
            self.assertEqual(self.infer("text", body, headers)[0], 200)
            self.assertEqual(self.infer("text", body[:-1], headers)[0], 400)
        self.assertTrue(wait_for(lambda: b"\nisoline_request_bytes_in_flight 0\n" in self.server.request("/metrics")[2]))

    def test_refusals(self):
        good = tensor([1, 2, 3])
        cases = [
            ("unknown", {"inputs": [good]}, 404), ("simple", {}, 400), ("simple", {"inputs": []}, 400),
            ("simple", {"inputs": [good, good]}, 400), ("simple", {"inputs": [{**good, "name": "X"}]}, 400),
            ("simple", {"inputs": [{**good, "datatype": "FP99"}]}, 400), ("simple", {"inputs": [{**good, "datatype": "INT32"}]}, 400),
            ("simple", {"inputs": [{**good, "shape": [1, 4]}]}, 400), ("simple", {"inputs": [{**good, "shape": [1, -3]}]}, 400),
            ("simple", {"inputs": [{**good, "shape": [3037000500, 3037000500, 3]}]}, 400), ("simple", {"inputs": [{**good, "shape": [9, 1]}]}, 400),
            ("simple", {"inputs": [{**good, "shape": [1 << 70, 1]}]}, 400), ("simple", {"inputs": [{**good, "data": [1e39, 2, 3]}]}, 400),
            ("simple", {"inputs": [{**good, "data": ["a", 2, 3]}]}, 400), ("simple", {"inputs": [good], "outputs": [{"name": "X"}]}, 400),
            ("simple", {"inputs": [{**good, "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 1 << 63}}]}, 501),
            ("simple", {"inputs": [good], "parameters": {"sequence_id": 7}}, 501), ("ints", {"inputs": [tensor([1, 2, 3, 300], [2, 2], datatype="INT8")]}, 400),
            ("half", {"inputs": [tensor([1], datatype="FP16")]}, 400),
        ]
        for model, body, want in cases:
            status, answer = self.infer_json(model, body)
            self.assertEqual(status, want, (body, answer))
            self.assertIsInstance(answer["error"], str)
        texts = [b"", b"{", b"[" * 200, b'{"inputs":' + b"[" * 150 + b"]" * 150 + b"}", b'{"inputs":[],"inputs":[]}', b"\xff", b'{"a":01}', b'{"a":NaN}']
        for text in texts:
            self.assertEqual(self.infer("simple", text)[0], 400, text)
        body, headers = self.binary("text", struct.pack("<I", 0xFFFFFFFF) + b"abc", "BYTES", [1, 1])
        self.assertEqual(self.infer("text", body, headers)[0], 400)
        for value in ("x", "-1", "99999999", "18446744073709551616"):
            self.assertEqual(self.infer("simple", body, {"Inference-Header-Content-Length": value})[0], 400, value)
        for path in ("/v2/models/..%2f..%2fetc/ready", "/v2/models/%2e%2e/config", "/v2/models/a%00b", "/v2/models/%zz"):
            self.assertEqual(self.server.request(path)[0], 400, path)
        for path in ("/page", "/v3", "/v2/models", "/v2/models/simple/versions/9/config", "/v2/models/simple/versions/01"):
            self.assertEqual(self.server.request(path)[0], 404, path)
        self.assertEqual(self.server.request("/v2/models/simple/infer")[0], 405)
        self.assertEqual(self.server.request("/v2", b"")[0], 405)

    def test_index_load_unload(self):
        write_model(self.server.root, "late", identity())
        (self.server.root / "link").symlink_to(self.server.root / "late")
        index = {m["name"]: m for m in self.server.json("/v2/repository/index", {})[1]}
        self.assertEqual(index["simple"]["state"], "READY")
        self.assertNotIn("link", index)
        self.assertEqual(self.server.request("/v2/models/late/ready")[0], 404)
        for step, want in (("load", 200), ("load", 200), ("unload", 200), ("unload", 200)):
            self.assertEqual(self.server.request(f"/v2/repository/models/late/{step}", b"")[0], want)
            self.assertEqual(self.server.request("/v2/models/late/ready")[0], 200 if step == "load" else 404)
        self.assertEqual(self.server.request("/v2/repository/models/link/load", b"")[0], 404)
        self.assertEqual(self.server.request("/v2/repository/models/none/load", b"")[0], 404)
        config = {"parameters": {"config": json.dumps({"platform": "isoline_identity", "max_batch_size": 2, "input": [
            {"name": "A", "data_type": "TYPE_INT64", "dims": [1]}], "output": [{"name": "B", "data_type": "TYPE_INT64", "dims": [1]}]})}}
        self.assertEqual(self.server.request("/v2/repository/models/late/load", config)[0], 200)
        self.assertEqual(self.server.json("/v2/models/late/config")[1]["max_batch_size"], 2)
        bad = {"parameters": {"config": '{"max_batchsize": 3}'}}
        status, answer = self.server.json("/v2/repository/models/late/load", bad)
        self.assertEqual(status, 400)
        self.assertIn("max_batchsize", answer["error"])
        self.assertEqual(self.server.json("/v2/models/late/config")[1]["max_batch_size"], 2)  # the old one serves on

    def test_statistics_and_metrics(self):
        before = stats(self.server, "half")
        body, headers = self.binary("half", b"\0" * 12, "FP16", [3, 2], parameters={"binary_data_output": True})
        for _ in range(4):
            self.assertEqual(self.infer("half", body, headers)[0], 200)
        after = stats(self.server, "half")
        self.assertEqual(after["inference_count"] - before["inference_count"], 12)
        self.assertEqual(after["execution_count"] - before["execution_count"], 4)
        for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"):
            self.assertEqual(set(after["inference_stats"][name]), {"count", "ns"})
        self.assertEqual(after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"], 4)
        self.assertIn(3, [b["batch_size"] for b in after["batch_stats"]])
        text = self.server.request("/metrics")[2].decode()
        self.assertIn(f'nv_inference_count{{model="half",version="1"}} {after["inference_count"]}\n', text)
        self.assertIn('isoline_inference_request_duration_seconds_bucket{model="half",version="1",le="+Inf"}', text)
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) .+|[a-z_]+(\{[^{}]*\})? [0-9.e+-]+)$')


class Scheduling(unittest.TestCase):
    def run_many(self, server, model, n, **more):
        def one(i):
            start = time.monotonic()
            status, answer = server.json(f"/v2/models/{model}/infer", {"inputs": [tensor([i])], **more})
            return status, answer, time.monotonic() - start
        with concurrent.futures.ThreadPoolExecutor(n) as pool:
            return list(pool.map(one, range(n)))

    def test_batching_batches(self):
        extra = "dynamic_batching { max_queue_delay_microseconds: 300000 }"
        with serving(ISOLINE, {"m": identity(max_batch=4, extra=extra), "alone": identity(max_batch=4, delay_ms=5)}) as server:
            for i, (status, answer, _) in enumerate(self.run_many(server, "m", 8)):
                self.assertEqual((status, answer["outputs"][0]["data"]), (200, [i]))  # everybody's own answer
            s = stats(server, "m")
            self.assertEqual(s["inference_count"], 8)
            self.assertLessEqual(s["execution_count"], 4)
            self.assertIn(4, [b["batch_size"] for b in s["batch_stats"]])
            self.run_many(server, "alone", 6)
            self.assertEqual(stats(server, "alone")["execution_count"], 6)

    def test_batches_under_load_and_while_draining(self):
        # More waits than a batch takes, all the time: the next batch is made ready while one runs.
        extra = "dynamic_batching { }"
        for instances in (1, 2):
            with serving(ISOLINE, {"m": identity(max_batch=8, delay_ms=3, extra=extra + " instance_group { count: %d }" % instances)}) as server:
                def one(i):
                    n = 1 + i % 3
                    values = [i * 10 + k for k in range(n)]
                    status, answer = server.json("/v2/models/m/infer", {"inputs": [tensor(values, [n, 1])]})
                    return status, status == 200 and answer["outputs"][0]["data"] == values
                with concurrent.futures.ThreadPoolExecutor(32) as pool:
                    self.assertEqual(set(pool.map(one, range(1200))), {(200, True)})
                    s = stats(server, "m")
                    self.assertEqual((s["inference_count"], s["inference_stats"]["success"]["count"]), (2400, 1200))
                    self.assertLess(s["execution_count"], 600)
                    late = [pool.submit(one, i) for i in range(32)]
                    wait_for(lambda: stats(server, "m")["inference_count"] > 2400, 2)
                    server.process.send_signal(signal.SIGTERM)
                    answers = []
                    for f in late:
                        try:
                            answers.append(f.result())
                        except OSError:
                            pass  # came after the listener was gone
                    self.assertEqual(set(answers), {(200, True)})
                self.assertEqual(server.process.wait(5), 0)

    def test_queue_limit_and_timeout(self):
        extra = "dynamic_batching { default_queue_policy { max_queue_size: 2 allow_timeout_override: true } }"
        with serving(ISOLINE, {"m": identity(max_batch=1, delay_ms=400, extra=extra)}) as server:
            answers = self.run_many(server, "m", 8)
            rejected = [a for a in answers if a[0] == 503]
            self.assertEqual(sorted(set(a[0] for a in answers)), [200, 503])
            self.assertGreaterEqual(len(rejected), 4)
            for _, answer, seconds in rejected:
                self.assertIn("maximum queue size", answer["error"])
                self.assertLess(seconds, 0.3)  # at once, not after the others
            threading.Thread(target=self.run_many, args=(server, "m", 1)).start()
            time.sleep(0.1)
            [(status, answer, seconds)] = self.run_many(server, "m", 1, parameters={"timeout": 50000})
            self.assertEqual(status, 503)
            self.assertIn("timeout", answer["error"])
            self.assertLess(seconds, 0.25)

    def test_priorities(self):
        extra = "dynamic_batching { priority_levels: 2 default_priority_level: 2 }"
        with serving(ISOLINE, {"m": identity(max_batch=1, delay_ms=150, extra=extra)}) as server:
            order = []

            def one(priority):
                server.json("/v2/models/m/infer", {"inputs": [tensor([0])], "parameters": {"priority": priority}})
                order.append(priority)
            threads = []
            for priority in (2, 2, 2, 1):
                threads.append(threading.Thread(target=one, args=(priority,)))
                threads[-1].start()
                time.sleep(0.03)
            for t in threads:
                t.join()
            self.assertEqual(order, [2, 1, 2, 2])

    def test_instances_run_beside_each_other(self):
        with serving(ISOLINE, {"m": identity(max_batch=1, delay_ms=300, extra="instance_group { count: 3 }")}) as server:
            start = time.monotonic()
            self.run_many(server, "m", 3)
            self.assertLess(time.monotonic() - start, 0.6)

    def test_cancel_on_disconnect(self):
        with serving(ISOLINE, {"m": identity(max_batch=1, delay_ms=500)}) as server:
            body = json.dumps({"inputs": [tensor([1])]}).encode()
            request = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            sockets = [socket.create_connection(("127.0.0.1", server.http)) for _ in range(3)]
            for s in sockets:
                s.sendall(request)
                time.sleep(0.05)
            for s in sockets:
                s.close()
            def cancelled():
                text = server.request("/metrics")[2].decode()
                return 'reason="CANCELED"} 2' in text
            self.assertTrue(wait_for(cancelled, 1))
            time.sleep(0.6)
            self.assertEqual(stats(server, "m")["execution_count"], 1)

    def test_drain_finishes_what_runs(self):
        with serving(ISOLINE, {"m": identity(max_batch=1, delay_ms=500)}) as server:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                future = pool.submit(server.json, "/v2/models/m/infer", {"inputs": [tensor([7])]})
                time.sleep(0.2)
                server.process.send_signal(signal.SIGTERM)
                self.assertEqual(future.result()[0], 200)
            self.assertEqual(server.process.wait(5), 0)

    def test_loading_holds_up_nobody(self):
        slow = identity(delay_ms=400, extra="""model_warmup { name: "w" batch_size: 1 count: 2 inputs { key: "INPUT0" value {
            data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } } }""")
        with serving(ISOLINE, {"m": identity()}) as server:
            for i in range(6):
                write_model(server.root, f"slow{i}", slow)
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                loads = [pool.submit(server.request, f"/v2/repository/models/slow{i}/load", b"", timeout=60) for i in range(6)]
                self.assertTrue(wait_for(lambda: any(m.get("state") == "LOADING" for m in server.json("/v2/repository/index", {})[1])))
                # Large bodies go through the pool, and the index does.
                status, answer = server.json("/v2/models/m/infer", {"inputs": [tensor([0.5] * 300000)]})
                self.assertEqual((status, len(answer["outputs"][0]["data"])), (200, 300000))
                self.assertFalse(any(f.done() for f in loads[1:]))
                self.assertEqual([f.result()[0] for f in loads], [200] * 6)

    def test_control_requests_are_small(self):
        with serving(ISOLINE, {"m": identity()}) as server:
            large = b'{"parameters":{"x":"' + b"x" * (3 << 20) + b'"}}'
            for path in ("/v2/repository/index", "/v2/repository/models/m/load", "/v2/repository/models/m/unload"):
                self.assertEqual(server.request(path, large)[0], 413, path)
            self.assertEqual(server.request("/v2/models/m/ready")[0], 200)

    def test_failed_model_and_strict(self):
        models = {"good": identity(), "bad": 'platform: "isoline_identity" max_batch: 3'}
        with serving(ISOLINE, models) as server:
            index = {m["name"]: m for m in server.json("/v2/repository/index", {})[1]}
            self.assertEqual(index["bad"]["state"], "UNAVAILABLE")
            self.assertIn("'max_batch'", index["bad"]["reason"])
        with self.assertRaises(RuntimeError):
            with serving(ISOLINE, models, "--strict"):
                pass


class Access(unittest.TestCase):
    def test_pages_of_other_sites(self):
        with serving(ISOLINE, {"m": identity()}) as server:
            here = server.url
            ask = lambda **headers: server.request("/v2/models/m/infer", {"inputs": [tensor([1])]}, {k.replace("_", "-"): v for k, v in headers.items()})[0]
            for headers in ({}, {"Origin": here}, {"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"},
                            {"Sec_Fetch_Site": "same-origin", "Origin": "https://behind.a.proxy"}):
                self.assertEqual(ask(**headers), 200, headers)
            for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": here + "0"}, {"Sec_Fetch_Site": "cross-site"},
                            {"Sec_Fetch_Site": "same-site", "Origin": here}):
                self.assertEqual(ask(**headers), 403, headers)
            self.assertEqual(server.request("/v2/repository/models/m/unload", b"", {"Origin": "http://evil.example"})[0], 403)
            self.assertEqual(server.request("/v2/models/m/ready", headers={"Origin": "http://evil.example"})[0], 200)

    def test_names_that_are_not_this_machine(self):
        with serving(ISOLINE, {"m": identity()}, "--host-name", "Scans.Example") as server:
            def status(host, path="/v2/models/m", **more):
                return server.request(path, headers={"Host": host, **more.pop("headers", {})}, **more)[0]
            for host in ("localhost", "LocalHost:8000", "a.localhost:1", "127.0.0.1:8000", "[::1]:8000", "scans.example:8000"):
                self.assertEqual(status(host), 200, host)
            for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "evillocalhost:8000", "127.0.0.1.evil.example"):
                self.assertEqual(status(host), 403, host)
                self.assertEqual(status(host, "/v2/repository/models/m/unload", body={}, headers={"Origin": "http://" + host}), 403, host)
                self.assertEqual(status(host, "/metrics"), 403, host)
                self.assertEqual(status(host, "/v2/health/live"), 200, host)
            self.assertEqual(status("localhost"), 200)

    def test_token_and_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            key, certificate, tokens = (os.path.join(folder, n) for n in ("key.pem", "cert.pem", "tokens"))
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                            "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                           check=True, capture_output=True)
            with open(tokens, "w") as f:
                f.write("# tokens\n0123456789abcdef0123\n")
            options = ("--tls-certificate", certificate, "--tls-key", key, "--token-file", tokens)
            with serving(ISOLINE, {"m": identity()}, *options) as server:
                context = ssl.create_default_context(cafile=certificate)

                def get(path, token=None, data=None):
                    headers = {"Authorization": f"Bearer {token}"} if token else {}
                    request = urllib.request.Request(f"https://localhost:{server.http}{path}", headers=headers, data=data)
                    try:
                        return urllib.request.urlopen(request, context=context, timeout=5).status
                    except urllib.error.HTTPError as e:
                        return e.code
                self.assertEqual(get("/v2/health/ready"), 200)
                for token in (None, "wrong", "0123456789abcdef012", "0123456789abcdef01234"):
                    self.assertEqual(get("/v2", token), 401)
                    self.assertEqual(get("/metrics", token), 401)
                self.assertEqual(get("/v2", "0123456789abcdef0123"), 200)
                big = json.dumps({"inputs": [tensor([1.5] * 200000)]}).encode()
                self.assertEqual(get("/v2/models/m/infer", "0123456789abcdef0123", big), 200)


if __name__ == "__main__":
    unittest.main()
