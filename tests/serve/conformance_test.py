"""Unmodified clients against the server: tritonclient over HTTP and gRPC (sync, async, stream) and perf_analyzer 2.41.

conformance_test.py ISOLINE FOLDER: the clients are installed into FOLDER once; exit code 77 where they cannot be had.
"""
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import unittest

from clients import perf_analyzer, run_with_clients

run_with_clients(sys.argv[2])

import grpc  # noqa: E402
import numpy as np  # noqa: E402
import tritonclient.grpc as grpcclient  # noqa: E402
import tritonclient.http as httpclient  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

from server import identity, serving  # noqa: E402

FOLDER = pathlib.Path(sys.argv.pop(2)).resolve()
ISOLINE = sys.argv.pop(1)


class Conformance(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        batching = "dynamic_batching { max_queue_delay_microseconds: 500 }"
        cls.context = serving(ISOLINE, {"simple": identity(dims="16", extra=batching), "text": identity(type="TYPE_STRING"),
                                        "halves": identity(type="TYPE_FP16"), "slow": identity(delay_ms=300)})
        cls.server = cls.context.__enter__()
        cls.http = httpclient.InferenceServerClient(f"127.0.0.1:{cls.server.http}", concurrency=4)
        cls.grpc = grpcclient.InferenceServerClient(f"127.0.0.1:{cls.server.grpc}")

    @classmethod
    def tearDownClass(cls):
        cls.http.close()
        cls.grpc.close()
        cls.context.__exit__(None, None, None)

    def both(self):
        return ((httpclient, self.http), (grpcclient, self.grpc))

    @staticmethod
    def tensor(client, array, datatype="FP32", **options):
        t = client.InferInput("INPUT0", list(array.shape), datatype)
        t.set_data_from_numpy(array, **options)
        return t

    def test_server_and_models(self):
        for client, c in self.both():
            self.assertTrue(c.is_server_live() and c.is_server_ready() and c.is_model_ready("simple") and c.is_model_ready("simple", "1"))
            self.assertFalse(c.is_model_ready("nothing"))
            for call in (c.get_server_metadata, lambda: c.get_model_metadata("simple"), lambda: c.get_model_config("simple"),
                         c.get_inference_statistics, lambda: c.get_inference_statistics("simple", "1"), c.get_model_repository_index):
                self.assertTrue(call())
            c.unload_model("halves")
            self.assertFalse(c.is_model_ready("halves"))
            c.load_model("halves")
            self.assertTrue(c.is_model_ready("halves"))
        config = self.grpc.get_model_config("simple", as_json=True)["config"]
        self.assertEqual((config["max_batch_size"], config["input"][0]["data_type"], config["input"][0]["dims"]), (8, "TYPE_FP32", ["16"]))
        self.assertEqual(config["dynamic_batching"]["max_queue_delay_microseconds"], "500")
        stats = self.grpc.get_inference_statistics("simple", as_json=True)["model_stats"][0]
        self.assertEqual((stats["name"], stats["version"]), ("simple", "1"))
        with self.assertRaises(InferenceServerException) as e:
            self.grpc.get_model_metadata("nothing")
        self.assertEqual(e.exception.status(), "StatusCode.NOT_FOUND")

    def test_infer(self):
        x = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
        for client, c in self.both():
            for outputs in (None, [client.InferRequestedOutput("OUTPUT0")]):
                answer = c.infer("simple", [self.tensor(client, x)], outputs=outputs, request_id="id-7")
                np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), x)
            for coding in ("gzip", "deflate"):
                options = {"request_compression_algorithm": coding, "response_compression_algorithm": coding} if client is httpclient else {
                    "compression_algorithm": coding}
                np.testing.assert_array_equal(c.infer("simple", [self.tensor(client, x)], **options).as_numpy("OUTPUT0"), x)
            words = np.array([["a", "", "ü" * 40]], dtype=object)
            answer = c.infer("text", [self.tensor(client, words, "BYTES")]).as_numpy("OUTPUT0")
            self.assertEqual([w.decode() for w in answer[0]], list(words[0]))
            big = np.zeros((8, 1 << 18), np.float16)
            self.assertEqual(c.infer("halves", [self.tensor(client, big, "FP16")]).as_numpy("OUTPUT0").shape, big.shape)
            with self.assertRaises(InferenceServerException) as e:
                c.infer("simple", [self.tensor(client, x[:, :4])])
            self.assertIn("shape", e.exception.message())
            with self.assertRaises(InferenceServerException):
                c.infer("nothing", [self.tensor(client, x)])
        plain = self.http.infer("simple", [self.tensor(httpclient, x, binary_data=False)],
                                outputs=[httpclient.InferRequestedOutput("OUTPUT0", binary_data=False)])
        np.testing.assert_array_equal(plain.as_numpy("OUTPUT0"), x)

    def test_async(self):
        xs = [np.full((1, 16), i, np.float32) for i in range(20)]
        pending = [self.http.async_infer("simple", [self.tensor(httpclient, x)]) for x in xs]
        for x, p in zip(xs, pending):
            np.testing.assert_array_equal(p.get_result().as_numpy("OUTPUT0"), x)
        answers = queue.Queue()
        for i, x in enumerate(xs):
            self.grpc.async_infer("simple", [self.tensor(grpcclient, x)], callback=lambda result, error, i=i: answers.put((i, result, error)))
        for _ in xs:
            i, result, error = answers.get(timeout=10)
            self.assertIsNone(error)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), xs[i])

    def test_messages_above_the_limits(self):
        def status(method, size, **options):
            with grpc.insecure_channel(f"127.0.0.1:{self.server.grpc}", options=[("grpc.max_send_message_length", -1)]) as channel:
                with self.assertRaises(grpc.RpcError) as e:
                    channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"\0" * size, timeout=30, **options)
            return e.exception.code()
        self.assertEqual(status("ServerMetadata", 3 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertEqual(status("ServerMetadata", 30 << 20, compression=grpc.Compression.Gzip), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertEqual(status("ModelInfer", 65 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertEqual(status("ModelInfer", 65 << 20, compression=grpc.Compression.Gzip), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertEqual(status("ModelInfer", 100), grpc.StatusCode.INVALID_ARGUMENT)

    def test_stream(self):
        answers = queue.Queue()
        self.grpc.start_stream(callback=lambda result, error: answers.put((result, error)))
        for i in range(10):
            self.grpc.async_stream_infer("simple", [self.tensor(grpcclient, np.full((1, 16), i, np.float32))], request_id=str(i))
        got = {}
        for _ in range(10):
            result, error = answers.get(timeout=10)
            self.assertIsNone(error)
            got[result.get_response().id] = result.as_numpy("OUTPUT0")[0, 0]
        self.assertEqual(got, {str(i): i for i in range(10)})
        self.grpc.async_stream_infer("nothing", [self.tensor(grpcclient, np.zeros((1, 16), np.float32))])
        self.assertIsNotNone(answers.get(timeout=10)[1])  # the stream survives it
        self.grpc.async_stream_infer("simple", [self.tensor(grpcclient, np.ones((1, 16), np.float32))])
        self.assertIsNone(answers.get(timeout=10)[1])
        self.grpc.stop_stream()

    def test_deadline(self):
        x = self.tensor(grpcclient, np.zeros((1, 16), np.float32))
        with self.assertRaises(InferenceServerException) as e:
            self.grpc.infer("slow", [x], client_timeout=0.1)
        self.assertEqual(e.exception.status(), "StatusCode.DEADLINE_EXCEEDED")
        self.assertIsNotNone(self.grpc.infer("slow", [x], client_timeout=5))

    def test_tls_and_token(self):
        x = np.arange(16, dtype=np.float32).reshape(1, 16)
        with tempfile.TemporaryDirectory() as folder:
            certificate, key, tokens = (os.path.join(folder, n) for n in ("c.pem", "k.pem", "tokens"))
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
                           check=True, capture_output=True)
            pathlib.Path(tokens).write_text("a-token-of-some-length\n")
            with serving(ISOLINE, {"simple": identity(dims="16")}, "--tls-certificate", certificate, "--tls-key", key, "--token-file", tokens) as server:
                http = httpclient.InferenceServerClient(f"localhost:{server.http}", ssl=True, ssl_options={"ca_certs": certificate})
                grpc = grpcclient.InferenceServerClient(f"localhost:{server.grpc}", ssl=True, root_certificates=certificate)
                for client, c in ((httpclient, http), (grpcclient, grpc)):
                    self.assertTrue(c.is_server_live())  # health needs no token
                    answer = c.infer("simple", [self.tensor(client, x)], headers={"authorization": "Bearer a-token-of-some-length"})
                    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), x)
                    for headers in ({}, {"authorization": "Bearer a-token-of-some-lengti"}):
                        with self.assertRaises(InferenceServerException) as e:
                            c.infer("simple", [self.tensor(client, x)], headers=headers)
                        self.assertIn(e.exception.status(), ("401", "StatusCode.UNAUTHENTICATED"))
                http.close()
                grpc.close()
                with self.assertRaises(InferenceServerException):  # a client that does not know the certificate
                    grpcclient.InferenceServerClient(f"localhost:{server.grpc}", ssl=True).is_server_live(client_timeout=5)
                with self.assertRaises(InferenceServerException):  # nor one without TLS
                    grpcclient.InferenceServerClient(f"localhost:{server.grpc}").is_server_live(client_timeout=5)

    def test_perf_analyzer(self):
        program, env = perf_analyzer(FOLDER)
        for protocol, port in (("http", self.server.http), ("grpc", self.server.grpc)):
            for more in ([], ["--async"], ["--streaming"] if protocol == "grpc" else ["--percentile=99"]):
                with tempfile.TemporaryDirectory() as out:
                    table = os.path.join(out, "t.csv")
                    command = [program, "-m", "simple", "-u", f"127.0.0.1:{port}", "-i", protocol, "-b", "2", "--concurrency-range", "2", "-p", "400",
                               "-s", "999", "-r", "10", "-f", table, *more]
                    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
                    self.assertTrue(os.path.exists(table), done.stdout + done.stderr)
                    with open(table) as f:
                        names, values = (line.strip().split(",") for line in f.readlines()[:2])
                    row = dict(zip(names, values))
                    self.assertGreater(float(row["Inferences/Second"]), 100, done.stdout)
                    self.assertIn("Server Compute Infer", row)
        stats = self.server.json("/v2/models/simple/stats")[1]["model_stats"][0]
        self.assertLess(stats["execution_count"], stats["inference_count"])


if __name__ == "__main__":
    unittest.main()
