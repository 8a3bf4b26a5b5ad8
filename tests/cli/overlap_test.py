#!/usr/bin/env python3
"""A folder of cases read, segmented and written at the same time: the same files, failures and order as one by one.

Usage: overlap_test.py ISOLINE GOLDENS. Standard library only. The reference backend stands for a slow device.
"""
import gzip
import json
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ISOLINE = pathlib.Path(sys.argv[1]).resolve()
GOLDENS = pathlib.Path(sys.argv[2]).resolve()
MODEL = GOLDENS / "plain3d_iso_regions" / "model"
CORRUPT, EXHAUSTED, IO, CANCELLED = 4, 6, 7, 130
NAMES = ["a", "b", "c", "d", "e"]


def scan(n, seed):
    """A cube of n³ int16 voxels, little endian NIfTI-1."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, n, n, n, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<3f", header, 108, 352.0, 1.0, 0.0)
    struct.pack_into("<2h", header, 252, 0, 1)
    for i in range(3):
        struct.pack_into("<4f", header, 280 + 16 * i, *[float(i == k) for k in range(4)])
    header[344:348] = b"n+1\0"
    period = 211 + seed
    values = struct.pack(f"<{period}h", *[(i * 37 + seed) % 151 - 50 for i in range(period)])
    return bytes(header) + (values * (2 * n**3 // len(values) + 1))[:2 * n**3]


class Overlap(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="isoline_overlap_"))
        self.cases = self.dir / "cases"
        self.cases.mkdir()

    def tearDown(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def fill(self, n):
        for seed, name in enumerate(NAMES):
            (self.cases / f"{name}_0000.nii.gz").write_bytes(gzip.compress(scan(n, seed), 1))

    def command(self, overlap, out, *extra):
        return [str(c) for c in (ISOLINE, "segment", "-m", MODEL, "-i", self.cases, "-o", out, "--tta", "none", "--step", "1",
                                 "--backend", "reference", "--json", "--quiet", "--overlap", overlap, *extra)]

    def run_folder(self, overlap, *extra, code=0, out=None):
        out = out or self.dir / overlap
        result = subprocess.run(self.command(overlap, out, *extra), capture_output=True, text=True, timeout=300)
        self.assertEqual(result.returncode, code, result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(report["overlapped"], overlap == "on")
        return report, {p.name: p.read_bytes() for p in sorted(out.iterdir()) if p.is_file()}, result.stderr

    def same_both_ways(self, *extra, code=0):
        off, on = (self.run_folder(way, *extra, code=code) for way in ("off", "on"))
        self.assertEqual(on[1], off[1])  # byte for byte
        self.assertEqual(on[2].replace("/on/", "/off/"), off[2])
        for key in ("cases", "failures"):
            self.assertEqual([c["id"] for c in on[0][key]], [c["id"] for c in off[0][key]])
        for a, b in zip(on[0]["cases"], off[0]["cases"]):
            self.assertEqual(a.get("label_voxels"), b.get("label_voxels"))
            self.assertNotIn("timeline_s", b)
        return on

    def test_the_same_files_and_really_at_the_same_time(self):
        self.fill(40)
        report, files, _ = self.same_both_ways()
        self.assertEqual(sorted(files), [n + ".nii.gz" for n in NAMES])
        self.assertEqual(len({v for v in files.values()}), 5)  # the cases differ, so a mix-up would show
        t = [c["timeline_s"] for c in report["cases"]]
        for i, c in enumerate(t):
            self.assertLessEqual(c["read"][1], c["segment"][0])
            self.assertLessEqual(c["segment"][1], c["write"][0])
            if i + 1 < len(t):
                self.assertLess(t[i + 1]["read"][0], c["segment"][1])  # read ahead
                self.assertLessEqual(c["write"][1], t[i + 1]["write"][0])  # one result at a time
            if i + 2 < len(t):
                self.assertGreaterEqual(t[i + 2]["read"][0], c["segment"][1])  # one scan at a time
        self.assertGreaterEqual(report["wall_s"], t[-1]["write"][1])
        for c in report["cases"]:
            self.assertAlmostEqual(c["total_s"], sum(b - a for a, b in c["timeline_s"].values()), delta=0.05)

    def test_a_bad_third_of_five(self):
        self.fill(20)
        path = self.cases / "c_0000.nii.gz"
        path.write_bytes(path.read_bytes()[:200])
        report, files, stderr = self.same_both_ways(code=CORRUPT)
        self.assertEqual([f["id"] for f in report["failures"]], ["c"])
        self.assertEqual(sorted(files), [n + ".nii.gz" for n in "abde"])
        self.assertEqual(len(stderr.splitlines()), 2)  # the case, and the end

    def test_writing_fails_in_the_middle(self):
        self.fill(20)
        for way in ("off", "on"):
            (self.dir / way / "c.nii.gz").mkdir(parents=True)
        report, files, _ = self.same_both_ways(code=IO)
        self.assertEqual([f["id"] for f in report["failures"]], ["c"])
        self.assertEqual(sorted(files), [n + ".nii.gz" for n in "abde"])

    def test_every_way_to_fail_at_once(self):
        self.fill(20)
        for name in "ae":
            (self.cases / f"{name}_0000.nii.gz").write_bytes(b"\x1f\x8b garbage")
        for way in ("off", "on"):
            (self.dir / way / "d.nii.gz").mkdir(parents=True)
        report, files, _ = self.same_both_ways(code=CORRUPT)  # the first failure's code
        self.assertEqual([f["id"] for f in report["failures"]], ["a", "d", "e"])
        self.assertEqual(sorted(files), ["b.nii.gz", "c.nii.gz"])

    def test_continue(self):
        self.fill(20)
        for way in ("off", "on"):
            (self.dir / way).mkdir()
            for name in "bce":
                (self.dir / way / f"{name}.nii.gz").write_bytes(b"kept")
        report, files, _ = self.same_both_ways("--continue")
        self.assertEqual([c["id"] for c in report["cases"] if c.get("skipped")], ["b", "c", "e"])
        self.assertEqual(files["c.nii.gz"], b"kept")

    def test_probabilities(self):
        self.fill(20)
        _, files, _ = self.same_both_ways("--save-probabilities")
        self.assertEqual(len(files), 10)

    def test_memory_that_holds_one_case_runs_them_one_by_one(self):
        self.fill(72)
        too_little = subprocess.run(self.command("on", self.dir / "none", "--max-ram", "3MiB"), capture_output=True, text=True)
        self.assertEqual(too_little.returncode, EXHAUSTED)
        needed = [int(n) for n in re.findall(r"needs about (\d+) MiB", too_little.stderr)]
        self.assertTrue(needed, too_little.stderr)
        report, _, _ = self.same_both_ways("--max-ram", f"{max(needed) + 1}MiB")
        t = [c["timeline_s"] for c in report["cases"]]
        for earlier, later in zip(t, t[1:]):
            self.assertGreaterEqual(later["read"][0], earlier["segment"][1])
            self.assertGreaterEqual(later["segment"][0], earlier["write"][1])

    def test_an_interrupt_leaves_whole_files_only(self):
        self.fill(64)
        out = self.dir / "out"
        process = subprocess.Popen(self.command("on", out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while not (out / "a.nii.gz").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertIsNone(process.poll(), "the run ended before it could be interrupted")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
        self.assertEqual(process.returncode, CANCELLED, stderr)
        report = json.loads(stdout)
        self.assertEqual([f["error"]["code"] for f in report["failures"]], ["cancelled"])
        names = sorted(p.name for p in out.iterdir())
        self.assertEqual(names, [c["id"] + ".nii.gz" for c in report["cases"]])
        self.assertLess(len(names), 5)
        for name in names:
            self.assertEqual(len(gzip.decompress((out / name).read_bytes())), 352 + 64**3)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=1)
