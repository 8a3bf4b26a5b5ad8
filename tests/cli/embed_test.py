#!/usr/bin/env python3
"""`isoline embed` on the bundled image network: vectors, JSON, exit codes, bad pictures.

Usage: embed_test.py ISOLINE SOURCE. Standard library only. Exit code 77 (skipped) where the build has no backend that
runs ONNX files.
"""
import array
import ast
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ISOLINE = pathlib.Path(sys.argv[1]).resolve()
SOURCE = pathlib.Path(sys.argv[2]).resolve()
MODEL = SOURCE / "models" / "photo_copies"
GOLDENS = SOURCE / "tests" / "goldens" / "embed"


def run(*arguments, code=0):
    result = subprocess.run([str(ISOLINE), "embed", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    if result.returncode != code:
        raise AssertionError(f"exit code {result.returncode}, not {code}: {result.stderr}")
    return result


def read_npy(path):
    data = pathlib.Path(path).read_bytes()
    assert data[:6] == b"\x93NUMPY"
    length = int.from_bytes(data[8:10], "little")
    header = ast.literal_eval(data[10:10 + length].decode())
    assert header["descr"] == "<f4" and not header["fortran_order"], header
    values = array.array("f", data[10 + length:])
    rows, columns = header["shape"]
    assert len(values) == rows * columns
    return [list(values[r * columns:(r + 1) * columns]) for r in range(rows)]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b))


class Embed(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="isoline_embed_"))
        self.out = self.dir / "vectors.npy"

    def tearDown(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def wanted(self):
        out = {}
        for line in (GOLDENS / "vectors.txt").read_text().splitlines():
            name, *values = line.split()
            out[name] = [float(v) for v in values]
        self.assertEqual(len(out), 7)
        return out

    def test_vectors_are_those_of_torch_and_pillow(self):
        wanted = self.wanted()
        for extra in ([], ["--batch", 2], ["--batch", 1, "--threads", 1], ["--batch", 3, "--threads", 4]):
            result = json.loads(run("-m", MODEL, GOLDENS, "-o", self.out, "--json", *extra).stdout)
            names = [pathlib.Path(f).name for f in result["images"]]
            self.assertEqual(names, sorted(wanted))
            self.assertEqual(result["shape"], [7, 128])
            self.assertEqual(result["failures"], [])
            for name, vector in zip(names, read_npy(self.out)):
                self.assertLess(max(abs(a - b) for a, b in zip(vector, wanted[name])), 1e-5, name)

    def test_copies_are_nearest_and_vectors_have_length_one(self):
        result = json.loads(run("-m", MODEL, GOLDENS, "--json", "-q").stdout)
        vectors = {pathlib.Path(f).stem: v for f, v in zip(result["images"], result["vectors"])}
        for k in range(3):
            self.assertAlmostEqual(cosine(vectors[f"photo{k}"], vectors[f"photo{k}"]), 1, places=5)
            own = cosine(vectors[f"photo{k}"], vectors[f"photo{k}_copy"])
            for other in range(3):
                if other != k:
                    self.assertGreater(own, cosine(vectors[f"photo{k}"], vectors[f"photo{other}_copy"]) + 0.1)

    def test_the_network_is_named_by_folder_description_or_onnx_file(self):
        rows = []
        for model in (MODEL, MODEL / "isoline_image.json", MODEL / "model.onnx"):
            run("-m", model, GOLDENS / "photo1.webp", "-o", self.out, "-q")
            rows.append(read_npy(self.out))
        self.assertEqual(rows[0], rows[1])
        self.assertEqual(rows[0], rows[2])

    def test_a_bad_picture_is_one_error_and_nothing_is_written(self):
        truncated = self.dir / "cut.jpg"
        truncated.write_bytes((GOLDENS / "photo1_copy.jpg").read_bytes()[:-200])
        (self.dir / "text.png").write_text("no picture")
        result = run("-m", MODEL, self.dir, GOLDENS, self.dir / "missing.jpg", "-o", self.out, code=4)
        lines = [line for line in result.stderr.splitlines() if line]
        self.assertEqual(len(lines), 4, result.stderr)
        self.assertIn("cut.jpg: the JPEG file is truncated", lines[0])
        self.assertIn("text.png: this is no JPEG, PNG or WebP file", lines[1])
        self.assertIn("missing.jpg", lines[2])
        self.assertIn("3 of 10 pictures", lines[3])
        self.assertFalse(self.out.exists())
        self.assertEqual(sorted(p.name for p in self.dir.iterdir()), ["cut.jpg", "text.png"])

    def test_skip_bad_keeps_the_good_ones_in_order(self):
        cut = self.dir / "cut.webp"
        cut.write_bytes((GOLDENS / "photo1.webp").read_bytes()[:300])
        files = [GOLDENS / "photo2.webp", cut, GOLDENS / "photo0.webp"]
        result = json.loads(run("-m", MODEL, *files, "-o", self.out, "--skip-bad", "--json").stdout)
        self.assertEqual(result["images"], [str(files[0]), str(files[2])])
        self.assertEqual([f["image"] for f in result["failures"]], [str(cut)])
        self.assertEqual(result["failures"][0]["error"]["code"], "corrupt")
        wanted = self.wanted()
        for name, vector in zip(("photo2.webp", "photo0.webp"), read_npy(self.out)):
            self.assertLess(max(abs(a - b) for a, b in zip(vector, wanted[name])), 1e-5)
        run("-m", MODEL, cut, cut, "-o", self.out, "--skip-bad", code=4)  # none left

    def test_limits_and_wrong_options(self):
        photo = GOLDENS / "photo0.webp"
        self.assertIn("limit is 100", run("-m", MODEL, photo, "-o", self.out, "--max-pixels", 100, code=6).stderr)
        self.assertIn("-o", run("-m", MODEL, photo, code=2).stderr)
        self.assertIn("no .jpg", run("-m", MODEL, self.dir, "-o", self.out, code=3).stderr)
        run("-m", MODEL, photo, "-o", self.dir / "no" / "folder.npy", code=3)
        self.assertIn("does not run ONNX", run("-m", MODEL, photo, "-o", self.out, "--backend", "native", code=5).stderr)
        self.assertIn("abacus", run("-m", MODEL, photo, "-o", self.out, "--backend", "abacus", code=3).stderr)
        run("-m", MODEL, photo, "-o", self.out, "--precision", "fp16", code=5)

    def test_a_description_that_does_not_fit_the_network_is_refused(self):
        shutil.copy(MODEL / "model.onnx", self.dir)
        good = json.loads((MODEL / "isoline_image.json").read_text())

        def refused(change, text):
            spec = json.loads(json.dumps(good))
            change(spec)
            (self.dir / "isoline_image.json").write_text(json.dumps(spec))
            result = subprocess.run([str(ISOLINE), "embed", "-m", str(self.dir), str(GOLDENS / "photo0.webp"), "-o", str(self.out)],
                                    capture_output=True, text=True, timeout=60)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(text, result.stderr)
            self.assertFalse(self.out.exists())

        refused(lambda s: s["resize"].update(size=[96, 97]), "[3, 96, 97]")
        refused(lambda s: s["input"].update(layout="NHWC"), "[96, 96, 3]")
        refused(lambda s: s["output"].update(name="logits"), "'logits'")
        refused(lambda s: s["resize"].update(antialias=True), "antialias")
        refused(lambda s: s.update(onnx="other.onnx"), "other.onnx")


if __name__ == "__main__":
    devices = subprocess.run([str(ISOLINE), "devices"], capture_output=True, text=True, timeout=60)
    if "openvino" not in devices.stdout:
        print("skipped: this build has no backend that runs ONNX files")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
