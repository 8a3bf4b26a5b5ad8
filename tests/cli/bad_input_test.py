#!/usr/bin/env python3
"""Bad input at the command line: one clear error, the documented exit code, and nothing left behind.

Usage: bad_input_test.py ISOLINE GOLDENS. Standard library only; scans are written here byte by byte.
"""
import gzip
import json
import os
import pathlib
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile

ISOLINE = pathlib.Path(sys.argv[1]).resolve()
GOLDENS = pathlib.Path(sys.argv[2]).resolve()
MODEL = GOLDENS / "plain3d_iso_regions" / "model"
USAGE, MISSING, CORRUPT, UNSUPPORTED, EXHAUSTED, IO, CANCELLED = 2, 3, 4, 5, 6, 7, 130


def nifti(shape=(20, 20, 20), spacing=(1.0, 1.0, 1.0), datatype=16, values=None, dim=None, srow=None):
    """A NIfTI-1 file of float32 (16) voxels; `shape` is x, y, z."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    dims = dim or [len(shape), *shape] + [1] * (7 - len(shape))
    struct.pack_into("<8h", header, 40, *dims)
    struct.pack_into("<2h", header, 70, datatype, 32)
    struct.pack_into("<8f", header, 76, 1.0, *spacing, *[0.0] * (7 - len(spacing)))
    struct.pack_into("<3f", header, 108, 352.0, 1.0, 0.0)
    header[123] = 2
    struct.pack_into("<2h", header, 252, 0, 1)
    rows = srow or [[spacing[0], 0, 0, 0], [0, spacing[1], 0, 0], [0, 0, spacing[2] if len(spacing) > 2 else 1, 0]]
    for i, row in enumerate(rows):
        struct.pack_into("<4f", header, 280 + 16 * i, *row)
    header[344:348] = b"n+1\0"
    count = 1
    for n in shape:
        count *= n
    if values is None:
        values = struct.pack(f"<{count}f", *[(i * 37 % 101) - 30.0 for i in range(count)])
    return bytes(header) + values


def half(data):
    return data[: len(data) // 2]


class BadInput(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="isoline_bad_"))
        self.out = self.dir / "out" / "labels.nii.gz"

    def tearDown(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def scan(self, data, name="scan.nii"):
        path = self.dir / name
        path.write_bytes(data)
        return path

    def segment(self, *inputs, model=MODEL, out=None, extra=()):
        out = out or self.out
        command = [ISOLINE, "segment", "-m", model, "-i", *inputs, "-o", out, "--tta", "none", "--step", "1.0", "--quiet",
                   *extra]
        if "--backend" not in extra:
            command += ["--backend", "reference"]
        return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120)

    def refused(self, result, code, *words):
        self.assertEqual(result.returncode, code, result.stderr)
        lines = [l for l in result.stderr.splitlines() if l.startswith("isoline:")]
        self.assertEqual(len(lines), 1, result.stderr)
        for word in words:
            self.assertIn(word.lower(), lines[0].lower())
        if self.out.parent.is_dir():
            self.assertEqual(list(self.out.parent.iterdir()), [])

    def model_copy(self):
        copy = self.dir / "model"
        shutil.copytree(MODEL, copy)
        return copy

    def edit_json(self, model, name, edit):
        content = json.loads((model / name).read_text())
        edit(content)
        (model / name).write_text(json.dumps(content))

    def test_good_input_is_segmented(self):  # the frame below must not pass by refusing everything
        result = self.segment(self.scan(nifti()))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(self.out.is_file())

    # The scan.
    def test_missing_file(self):
        self.refused(self.segment(self.dir / "none.nii.gz"), MISSING, "none.nii.gz")

    def test_truncated(self):
        self.refused(self.segment(self.scan(nifti()[:5000])), CORRUPT, "scan.nii")

    def test_truncated_gzip(self):
        self.refused(self.segment(self.scan(half(gzip.compress(nifti())), "scan.nii.gz")), CORRUPT, "scan.nii.gz")

    def test_garbage(self):
        self.refused(self.segment(self.scan(os.urandom(4096))), CORRUPT, "scan.nii")

    def test_empty(self):
        self.refused(self.segment(self.scan(b"")), CORRUPT, "scan.nii")

    def test_nan_and_infinity(self):
        for value in (float("nan"), float("inf")):
            values = bytearray(nifti()[352:])
            struct.pack_into("<f", values, 400, value)
            self.refused(self.segment(self.scan(nifti(values=bytes(values)))), CORRUPT, "scan.nii")

    def test_wrong_channel_count(self):
        a, b = self.scan(nifti(), "a.nii"), self.scan(nifti(), "b.nii")
        self.refused(self.segment(a, b), USAGE, "channel")

    def test_two_dimensional_into_three(self):
        self.refused(self.segment(self.scan(nifti(shape=(20, 20), spacing=(1.0, 1.0)))), USAGE, "2-d")

    def test_dims_that_overflow(self):
        for dim in ([3, 32767, 32767, 32767, 1, 1, 1, 1], [3, -5, 20, 20, 1, 1, 1, 1], [7] + [32767] * 7):
            result = self.segment(self.scan(nifti(dim=dim)))
            self.assertIn(result.returncode, (CORRUPT, UNSUPPORTED, EXHAUSTED), result.stderr)
            self.refused(result, result.returncode, "scan.nii")

    def test_zero_spacing(self):
        self.refused(self.segment(self.scan(nifti(spacing=(1.0, 0.0, 1.0)))), CORRUPT, "scan.nii")

    def test_non_orthonormal_direction(self):
        srow = [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
        self.refused(self.segment(self.scan(nifti(srow=srow))), UNSUPPORTED, "not orthogonal")

    # The output.
    def test_unwritable_output(self):
        blocker = self.dir / "file"
        blocker.write_text("x")
        result = self.segment(self.scan(nifti()), out=blocker / "labels.nii.gz")
        self.assertEqual(result.returncode, IO, result.stderr)
        self.assertIn("isoline:", result.stderr)

    def test_full_disk(self):
        disk = self.dir / "disk"
        disk.mkdir()
        scan = self.scan(nifti())
        script = (f'mount -t tmpfs -o size=4k tmpfs "{disk}" && head -c 4096 /dev/zero > "{disk}/fill"; '
                  f'"{ISOLINE}" segment -m "{MODEL}" -i "{scan}" -o "{disk}/labels.nii.gz" --backend reference '
                  f'--tta none --step 1.0 --quiet; code=$?; ls "{disk}"; exit $code')
        probe = subprocess.run(["unshare", "-m", "true"], capture_output=True)
        if probe.returncode:
            self.skipTest("this machine does not allow a mount namespace")
        result = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, EXHAUSTED, result.stderr)
        self.assertEqual(result.stdout.split(), ["fill"])  # nothing half-written

    # The model.
    def test_checkpoint_with_a_foreign_class(self):
        model = self.model_copy()
        checkpoint = model / "fold_0" / "checkpoint_final.pth"

        class Foreign:
            def __reduce__(self):
                return os.system, ("touch " + str(self.marker),)

        Foreign.marker = self.dir / "executed"
        content = pickle.dumps({"network_weights": Foreign(), "trainer_name": "nnUNetTrainer"}, protocol=2)
        with zipfile.ZipFile(checkpoint, "w") as z:
            z.writestr("archive/data.pkl", content)
            z.writestr("archive/version", "3\n")
        self.refused(self.segment(self.scan(nifti()), model=model), UNSUPPORTED, "system")
        self.assertFalse(Foreign.marker.exists())

    def test_missing_fold(self):
        self.refused(self.segment(self.scan(nifti()), extra=("--folds", "3")), MISSING, "fold_3")

    def test_missing_checkpoint(self):
        self.refused(self.segment(self.scan(nifti()), extra=("--checkpoint", "best.pth")), MISSING, "best.pth")

    def test_unknown_names_in_plans(self):
        def configuration(content):
            return next(iter(content["configurations"].values()))

        edits = {
            "NoSuchNet": lambda c: configuration(c)["architecture"].update(network_class_name="some.NoSuchNet"),
            "NoSuchNormalization": lambda c: configuration(c).update(normalization_schemes=["NoSuchNormalization"]),
            "no_such_resampler": lambda c: configuration(c).update(resampling_fn_data="no_such_resampler"),
            "NoSuchIO": lambda c: c.update(image_reader_writer="NoSuchIO"),
        }
        for name, edit in edits.items():
            with self.subTest(name):
                model = self.model_copy()
                self.edit_json(model, "plans.json", edit)
                self.refused(self.segment(self.scan(nifti()), model=model), UNSUPPORTED, name)
                shutil.rmtree(model)

    def test_a_name_that_is_no_text(self):
        name = os.fsencode(self.dir) + b"/no\xff.nii.gz"
        r = subprocess.run([ISOLINE, "segment", "-m", MODEL, "-i", name, "-o", self.out, "--json"], capture_output=True, timeout=120)
        self.assertEqual(r.returncode, 3)
        self.assertEqual(json.loads(r.stdout)["failures"][0]["error"]["code"], "not_found")

    def test_garbage_json(self):
        model = self.model_copy()
        (model / "plans.json").write_text('{"configurations": [')
        self.refused(self.segment(self.scan(nifti()), model=model), CORRUPT, "plans.json")

    # The run.
    def test_more_memory_than_allowed(self):
        self.refused(self.segment(self.scan(nifti()), extra=("--max-ram", "100KB")), EXHAUSTED, "max-ram")

    def test_unknown_backend_precision_and_axis(self):
        scan = self.scan(nifti())
        self.refused(self.segment(scan, extra=("--backend", "abacus")), MISSING, "abacus")
        self.refused(self.segment(scan, extra=("--precision", "int4")), USAGE, "int4")
        self.refused(self.segment(scan, extra=("--precision", "bf16")), UNSUPPORTED, "reference")

    def test_interrupted_run_leaves_nothing(self):
        scan = self.scan(nifti(shape=(90, 90, 90)))
        command = [ISOLINE, "segment", "-m", MODEL, "-i", scan, "-o", self.out, "--backend", "reference", "--quiet"]
        for first in (signal.SIGINT, signal.SIGTERM):
            process = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)
            time.sleep(1.0)
            self.assertIsNone(process.poll(), "the run ended before it could be interrupted")
            process.send_signal(first)
            _, stderr = process.communicate(timeout=60)
            self.assertEqual(process.returncode, CANCELLED, stderr)
            self.assertEqual(list(self.out.parent.iterdir()), [])

    def test_one_bad_case_does_not_stop_the_others(self):
        folder = self.dir / "cases"
        folder.mkdir()
        (folder / "a_0000.nii.gz").write_bytes(half(gzip.compress(nifti())))
        (folder / "b_0000.nii.gz").write_bytes(gzip.compress(nifti()))
        result = self.segment(folder, out=self.out.parent, extra=("--json",))
        self.assertEqual(result.returncode, CORRUPT, result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual([f["id"] for f in report["failures"]], ["a"])
        self.assertEqual([p.name for p in self.out.parent.iterdir()], ["b.nii.gz"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=1)
