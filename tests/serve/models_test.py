"""Networks served: plain ONNX folders and image networks, tensors and pictures, errors, memory after unloading.

models_test.py ISOLINE FOLDER SOURCE: Triton's clients are installed into FOLDER once; exit code 77 where they cannot be had, or where the
build has no backend that runs ONNX files.
"""
import concurrent.futures
import contextlib
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
import zlib

from clients import run_with_clients

run_with_clients(sys.argv[2])

import numpy as np  # noqa: E402
import tritonclient.grpc as grpcclient  # noqa: E402
import tritonclient.http as httpclient  # noqa: E402

from server import Server, identity, wait_for, write_model  # noqa: E402

ISOLINE = pathlib.Path(sys.argv[1]).resolve()
SOURCE = pathlib.Path(sys.argv[3]).resolve()
del sys.argv[1:]
PHOTO_COPIES = SOURCE / "models/photo_copies"
PICTURES = sorted(p for p in (SOURCE / "tests/goldens/embed").iterdir() if p.suffix in (".webp", ".jpg", ".png"))
TENSORS = SOURCE / "tests/goldens/tensor"


@contextlib.contextmanager
def serving(fill, *options):
    """A server over what `fill(root)` writes. It must end with 0."""
    with tempfile.TemporaryDirectory(prefix="isoline_models_") as root:
        fill(pathlib.Path(root))
        server = Server(ISOLINE, root, *options)
        server.root = pathlib.Path(root)
        try:
            yield server
        except BaseException:
            server.process.kill()
            server.process.wait()
            raise
        code = server.stop()
        assert code == 0, f"the server ended with {code}"


def copy_onnx(root, name, file=PHOTO_COPIES / "model.onnx", config=None, version=1):
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    shutil.copy(file, folder / "model.onnx")
    if config is not None:
        (root / name / "config.pbtxt").write_text(config)


def load(server, name, config=None):
    body = {"parameters": {"config": json.dumps(config)}} if config else {}
    return server.json(f"/v2/repository/models/{name}/load", body, timeout=60)


def unload(server, name):
    return server.json(f"/v2/repository/models/{name}/unload", {})


def stats(server, model):
    return server.json(f"/v2/models/{model}/stats")[1]["model_stats"][0]


def index(server):
    return {m["name"]: m for m in server.json("/v2/repository/index", {})[1]}


def send_picture(server, data, model="photo_copies", type="application/octet-stream", **headers):
    status, _, answer = server.request(f"/v2/models/{model}/infer", data, {"Content-Type": type, **headers})
    return status, json.loads(answer)


def vector(answer):
    output, = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("embedding", "FP32", [1, 128]), output
    return np.array(output["data"], np.float32)


def embedded():
    """{file name: vector} of `isoline embed`."""
    done = subprocess.run([ISOLINE, "embed", "-m", PHOTO_COPIES, *PICTURES, "--json", "-q"], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    return {pathlib.Path(f).name: np.array(v, np.float32) for f, v in zip(result["images"], result["vectors"])}


# The fields of ONNX's protocol buffers that a test's network needs.
def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def big_network(extent):
    """y[n, extent] = x[n, extent] times a square matrix of random float32 numbers."""
    weights = np.random.default_rng(1).standard_normal((extent, extent), np.float32)

    def port(name, columns):
        axes = field(1, field(2, "n")) + field(1, field(1, columns))
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, axes)))
    matrix = field(1, extent) + field(1, extent) + field(2, 1) + field(8, "w") + field(9, weights.tobytes())
    node = field(1, "x") + field(1, "w") + field(2, "y") + field(4, "MatMul")
    graph = field(1, node) + field(2, "g") + field(5, matrix) + field(11, port("x", extent)) + field(12, port("y", extent))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def png(width, height, rows=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


class ImageModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        def fill(root):
            shutil.copytree(PHOTO_COPIES, root / "photo_copies")
            copy_onnx(root, "plain")
            write_model(root, "echo", identity())
        cls.context = serving(fill)
        cls.server = cls.context.__enter__()
        cls.wanted = embedded()
        cls.http = httpclient.InferenceServerClient(f"127.0.0.1:{cls.server.http}", concurrency=4)
        cls.grpc = grpcclient.InferenceServerClient(f"127.0.0.1:{cls.server.grpc}")

    @classmethod
    def tearDownClass(cls):
        cls.http.close()
        cls.grpc.close()
        cls.context.__exit__(None, None, None)

    def test_metadata_says_what_runs(self):
        meta = self.http.get_model_metadata("photo_copies")
        self.assertEqual((meta["platform"], meta["inputs"], meta["outputs"]),
                         ("isoline_image", [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 96, 96]}],
                          [{"name": "embedding", "datatype": "FP32", "shape": [-1, 128]}]))
        config = self.http.get_model_config("photo_copies")
        self.assertEqual((config["max_batch_size"], config["dynamic_batching"]["max_queue_delay_microseconds"]), (32, 0))
        self.assertEqual(self.http.get_model_metadata("plain")["platform"], "openvino_onnx")
        self.assertEqual(self.http.get_model_config("plain")["backend"], "openvino")

    def test_pictures_have_the_bits_of_embed(self):
        for file in PICTURES:
            for type in ("application/octet-stream", "image/jpeg", "Image/PNG; q=1"):
                status, answer = send_picture(self.server, file.read_bytes(), type=type)
                self.assertEqual(status, 200, answer)
                np.testing.assert_array_equal(vector(answer), self.wanted[file.name], file.name)
        compressed = zlib.compress(PICTURES[0].read_bytes())
        status, answer = send_picture(self.server, compressed, **{"Content-Encoding": "deflate"})
        np.testing.assert_array_equal(vector(answer), self.wanted[PICTURES[0].name])

    def test_tensors_have_the_bits_of_pictures(self):
        # What the network sees can be read off nowhere; so a picture that needs no resizing, turned into a tensor here.
        pixels = np.random.default_rng(3).integers(0, 256, (4, 96, 96, 3), np.uint8)
        mean, std = (np.array(v, np.float32) for v in ([.485, .456, .406], [.229, .224, .225]))
        x = np.ascontiguousarray(((pixels.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))
        pictures = [png(96, 96, b"".join(b"\0" + row.tobytes() for row in p)) for p in pixels]
        from_pictures = np.stack([vector(send_picture(self.server, p)[1]) for p in pictures])
        np.testing.assert_allclose(np.linalg.norm(from_pictures, axis=1), 1, rtol=1e-6)
        for client, c in ((httpclient, self.http), (grpcclient, self.grpc)):
            t = client.InferInput("image", list(x.shape), "FP32")
            t.set_data_from_numpy(x)
            np.testing.assert_array_equal(c.infer("photo_copies", [t]).as_numpy("embedding"), from_pictures)
            plain = c.infer("plain", [t]).as_numpy("embedding")  # as the network gives it
            np.testing.assert_allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), from_pictures, atol=1e-6)
            self.assertGreater(abs(np.linalg.norm(plain, axis=1) - 1).max(), 0.01)

    def test_pictures_of_many_clients_are_batched(self):
        config = {"platform": "isoline_image", "max_batch_size": 8, "dynamic_batching": {"max_queue_delay_microseconds": 200000}}
        self.assertEqual(load(self.server, "photo_copies", config)[0], 200)
        try:
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(lambda i: send_picture(self.server, PICTURES[i % len(PICTURES)].read_bytes()), range(32)))
            for i, (status, answer) in enumerate(answers):
                self.assertEqual(status, 200, answer)
                np.testing.assert_array_equal(vector(answer), self.wanted[PICTURES[i % len(PICTURES)].name])
            s = stats(self.server, "photo_copies")
            self.assertEqual(s["inference_count"], 32)
            self.assertLessEqual(s["execution_count"], 12)
            # Decoding is part of each request's compute_input, and of no batch's.
            batches = sum(b["compute_input"]["ns"] for b in s["batch_stats"])
            self.assertGreater(s["inference_stats"]["compute_input"]["ns"], 5 * batches)
        finally:
            self.assertEqual(load(self.server, "photo_copies")[0], 200)

    def test_what_is_no_picture_is_refused(self):
        before = self.server.rss_kb()
        good = PICTURES[0].read_bytes()
        for data, want, text in ((b"", 400, "empty"), (b"GIF89a" + bytes(20), 415, "GIF"), (b"{}", 415, "no JPEG"), (good[:len(good) // 2], 400, ""),
                                 (png(60000, 60000), 413, "60000x60000"), (png(70000, 1), 413, "65535"), (png(9000, 9000, bytes(9000 * 100)), 400, "")):
            status, answer = send_picture(self.server, data)
            self.assertEqual(status, want, (data[:20], answer))
            self.assertIn(text, answer["error"])
        self.assertLess(self.server.rss_kb() - before, 64 << 10)
        self.assertEqual(send_picture(self.server, good, "echo", "image/jpeg")[0], 415)
        self.assertEqual(send_picture(self.server, good, "none")[0], 404)

    def test_decoding_memory_is_bounded(self):
        # Whole rows stream for PNG; an interlaced one needs the picture.
        interlaced = bytearray(png(5000, 5000))
        interlaced[28] = 1
        interlaced[29:33] = struct.pack(">I", zlib.crc32(bytes(interlaced[12:29])))
        with serving(lambda root: shutil.copytree(PHOTO_COPIES, root / "photo_copies"), "--max-decode-mb", "16", "--max-pixels", "30000000") as server:
            status, answer = send_picture(server, bytes(interlaced))
            self.assertEqual(status, 413, answer)
            self.assertIn("16 MiB", answer["error"])
            self.assertEqual(send_picture(server, png(6000, 6000))[0], 413)


class Repository(unittest.TestCase):
    def test_configurations(self):
        def fill(root):
            copy_onnx(root, "two", TENSORS / "two_inputs.onnx", 'platform: "onnxruntime_onnx" max_batch_size: 3 instance_group { count: 2 }')
            copy_onnx(root, "unbatched", TENSORS / "two_inputs.onnx", "max_batch_size: 0")
            copy_onnx(root, "fixed", TENSORS / "fixed_batch.onnx")
            copy_onnx(root, "versions", config='backend: "openvino" version_policy { specific { versions: [ 1, 3 ] } }')
            copy_onnx(root, "versions", version=3)
            shutil.copytree(PHOTO_COPIES, root / "image/7")
        with serving(fill, "--strict") as server:
            self.assertEqual({n: m["state"] for n, m in index(server).items()},
                             dict.fromkeys(("two", "unbatched", "fixed", "versions", "image"), "READY"))
            self.assertEqual(server.json("/v2/models/image")[1]["versions"], ["7"])
            self.assertEqual(server.json("/v2/models/versions")[1]["versions"], ["1", "3"])
            for version, want in (("1", 200), ("3", 200), ("2", 404)):
                status, answer = server.json(f"/v2/models/versions/versions/{version}/config")
                self.assertEqual(status, want)
            self.assertIn("version 2", answer["error"])
            config = server.json("/v2/models/two/config")[1]
            self.assertEqual((config["max_batch_size"], config["instance_group"][0]["count"]), (3, 2))
            self.assertNotIn("dynamic_batching", config)
            self.assertEqual(server.json("/v2/models/fixed/config")[1]["max_batch_size"], 0)
            self.assertEqual(server.json("/v2/models/unbatched")[1]["inputs"][0]["shape"], [-1, 3])
            body = {"inputs": [{"name": "values", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]},
                               {"name": "ids", "datatype": "INT64", "shape": [2, 2], "data": [1, 2, 3, 4]}]}
            for model in ("two", "unbatched"):
                status, answer = server.json(f"/v2/models/{model}/infer", body)
                self.assertEqual(status, 200, answer)
                self.assertEqual({o["name"]: o["data"] for o in answer["outputs"]}, {"tripled": [3, 6, 9, 12, 15, 18], "doubled": [2, 4, 6, 8]})

    def test_broken_models_leave_the_others_alone(self):
        cases = {
            "corrupt": (b"this is no network", "", "model.onnx"), "empty": (b"", "", "no network"),
            "cut": ((PHOTO_COPIES / "model.onnx").read_bytes()[:1000000], "", "model.onnx"),
            "wrong_batch": (TENSORS / "fixed_batch.onnx", "max_batch_size: 4", "max_batch_size 4"),
            "wrong_input": (TENSORS / "two_inputs.onnx", 'max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }', "no input 'x'"),
            "wrong_dims": (TENSORS / "two_inputs.onnx", 'max_batch_size: 4 input [ { name: "values" data_type: TYPE_FP32 dims: [ 4 ] },'
                           '{ name: "ids" data_type: TYPE_INT64 dims: [ 2 ] } ]', "[4] in the configuration"),
            "strings": (TENSORS / "strings.onnx", "", "string"), "stale": (TENSORS / "two_inputs.onnx", "version_policy { specific { versions: 2 } }", "version 2"),
            "misspelt": (TENSORS / "two_inputs.onnx", "max_batchsize: 4", "'max_batchsize'"),
            "escape": (TENSORS / "two_inputs.onnx", 'default_model_filename: "../../two_inputs.onnx"', "../../two_inputs.onnx"),
        }

        def fill(root):
            copy_onnx(root, "good", TENSORS / "two_inputs.onnx")
            for name, (file, config, _) in cases.items():
                folder = root / name / "1"
                folder.mkdir(parents=True)
                (folder / "model.onnx").write_bytes(file if isinstance(file, bytes) else file.read_bytes())
                if config:
                    (root / name / "config.pbtxt").write_text(config)
            (root / "missing/1").mkdir(parents=True)
            shutil.copytree(PHOTO_COPIES, root / "no_onnx")
            (root / "no_onnx/model.onnx").unlink()
            shutil.copytree(PHOTO_COPIES, root / "wrong_json")
            text = (PHOTO_COPIES / "isoline_image.json").read_text()
            (root / "wrong_json/isoline_image.json").write_text(text.replace('"divide_by"', '"divide"'))
        texts = {name: text for name, (_, _, text) in cases.items()}
        texts |= {"missing": "model.onnx", "no_onnx": "model.onnx", "wrong_json": "divide"}
        with serving(fill) as server:
            models = index(server)
            self.assertEqual(models.pop("good")["state"], "READY")
            self.assertEqual(set(models), set(texts))
            for name, text in texts.items():
                self.assertEqual(models[name]["state"], "UNAVAILABLE", name)
                self.assertIn(text, models[name]["reason"], name)
                self.assertNotIn("\n", models[name]["reason"], name)
                self.assertEqual(server.request(f"/v2/models/{name}/ready")[0], 404, name)
                status, answer = load(server, name)
                self.assertGreaterEqual(status, 400, name)
                self.assertIn(text, answer["error"], name)
            # Repaired, it loads.
            shutil.copy(TENSORS / "two_inputs.onnx", server.root / "corrupt/1/model.onnx")
            self.assertEqual(load(server, "corrupt")[0], 200)
            self.assertEqual(server.request("/v2/models/corrupt/ready")[0], 200)
            # A reload that fails leaves the old one serving.
            (server.root / "corrupt/1/model.onnx").write_bytes(b"broken again")
            self.assertGreaterEqual(load(server, "corrupt")[0], 400)
            self.assertEqual(server.request("/v2/models/corrupt/ready")[0], 200)

    def test_unloading_gives_memory_back_while_others_serve(self):
        extent = 4096
        weights_kb = extent * extent * 4 >> 10
        picture = PICTURES[0].read_bytes()

        def fill(root):
            shutil.copytree(PHOTO_COPIES, root / "photo_copies")
            (root / "big/1").mkdir(parents=True)
            (root / "big/1/model.onnx").write_bytes(big_network(extent))
        with serving(fill) as server:
            self.assertEqual(index(server)["big"]["state"], "READY")
            wanted = vector(send_picture(server, picture)[1])
            stop, answers, failures = threading.Event(), [], []

            def serve_on():
                while not stop.is_set():
                    status, answer = send_picture(server, picture)
                    answers.append(status)
                    if status != 200 or not np.array_equal(vector(answer), wanted):
                        failures.append(answer)
            others = [threading.Thread(target=serve_on) for _ in range(2)]
            for t in others:
                t.start()
            try:
                loaded, unloaded = [server.rss_kb()], []
                for _ in range(4):
                    self.assertEqual(unload(server, "big")[0], 200)
                    unloaded.append(server.rss_kb())
                    self.assertEqual(server.request("/v2/models/big/ready")[0], 404)
                    self.assertEqual(load(server, "big")[0], 200)
                    loaded.append(server.rss_kb())
            finally:
                stop.set()
                for t in others:
                    t.join()
            print(f"RSS in MB: loaded {[n >> 10 for n in loaded]}, unloaded {[n >> 10 for n in unloaded]}; {len(answers)} answers meanwhile")
            self.assertEqual(failures, [])
            self.assertGreater(len(answers), 20)
            for before, after in zip(loaded, unloaded):
                self.assertGreater(before - after, weights_kb * 0.9)
            self.assertLess(unloaded[-1] - unloaded[0], weights_kb * 0.2)  # nothing piles up
            self.assertTrue(wait_for(lambda: server.request("/v2/models/big/ready")[0] == 200))


if __name__ == "__main__":
    devices = subprocess.run([ISOLINE, "devices"], capture_output=True, text=True, timeout=60)
    if "openvino" not in devices.stdout:
        print("skipped: this build has no backend that runs ONNX files")
        sys.exit(77)
    unittest.main()
