#!/usr/bin/env python3
"""register, sweep and recommend as a user types them: one good run, and everything that can go wrong with one.

Usage: lab_test.py ISOLINE GOLDENS. Standard library only.
"""
import gzip
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ISOLINE = pathlib.Path(sys.argv[1]).resolve()
GOLDEN = pathlib.Path(sys.argv[2]).resolve() / "plain3d_iso_regions"
USAGE, NOT_FOUND, CORRUPT, EXHAUSTED, INTERNAL = 2, 3, 4, 6, 70

EXPERIMENT = """[experiment]
id = "TEST"
model = "{model}"
[cases]
images = "images"
references = "labels"
[[setting]]
name = "B0"
backend = "native"
tta = "none"
[[setting]]
name = "01"
step = 0.9
[[endpoint]]
metric = "dice"
region = "kidney"
delta = 0.05
[protocol]
idle_s = 0
repetitions = {repetitions}
"""


def run(*arguments):
    return subprocess.run([str(ISOLINE), *map(str, arguments)], capture_output=True, text=True, timeout=300)


def children_of(process):
    tasks = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
    return [pid for task in tasks for pid in task.read_text().split()]


class Lab(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="isoline_lab_"))
        (self.dir / "images").mkdir()
        (self.dir / "labels").mkdir()
        for i in range(6):
            shutil.copy(GOLDEN / "images" / "case_0000.nii.gz", self.dir / "images" / f"c{i}_0000.nii.gz")
            shutil.copy(GOLDEN / "labels.nii.gz", self.dir / "labels" / f"c{i}.nii.gz")
        self.experiment = self.dir / "e.toml"
        self.run_dir = self.dir / "run"
        self.write()

    def tearDown(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def write(self, *replacements, repetitions=1):
        text = EXPERIMENT.format(model=GOLDEN / "model", repetitions=repetitions)
        for old, new in replacements:
            self.assertIn(old, text)
            text = text.replace(old, new)
        self.experiment.write_text(text)

    def sweep(self, code=0):
        result = run("sweep", self.experiment, "-o", self.run_dir, "--json")
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def refused(self, code, *words, command="sweep"):
        arguments = [command, self.experiment] + (["-o", self.run_dir] if command == "sweep" else [])
        result = run(*arguments)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def lines(self):
        return (self.run_dir / "results.jsonl").read_text().splitlines()

    # One good run.
    def test_register_sweep_recommend(self):
        registered = run("register", self.experiment, "--json")
        self.assertEqual(registered.returncode, 0, registered.stderr)
        record = json.loads(registered.stdout)
        self.assertEqual(record["registered"]["endpoints"]["dice/kidney"]["delta"], 0.05)
        summary = json.loads(self.sweep().stdout)
        self.assertEqual(summary, json.loads((self.run_dir / "summary.json").read_text()))
        self.assertEqual(summary["registration"]["status"], "registered")
        self.assertEqual(summary["registration"]["sha256"], record["sha256"])
        base, other = summary["settings"]
        self.assertEqual(base["cases"], 6)
        self.assertGreater(base["s_per_case"]["value"], 0)
        self.assertGreater(base["peak_rss_bytes"]["value"], 1 << 20)
        self.assertEqual(base["window_ms"]["n"], sum(c["forwards"] for c in base["per_case"]))
        self.assertIn("native", base["runtime"])
        self.assertIsNone(base["verdict"])
        # All cases are the same scan: differences have no spread, so the verdict follows from the mean alone.
        endpoint = other["endpoints"][0]
        self.assertEqual(other["verdict"], "preserved" if endpoint["mean_difference"] > -0.05 else "not preserved")
        self.assertEqual(len(summary["provenance"]["model_sha256"]), 64)
        # Energy is measured or explained, never 0.
        for s in summary["settings"]:
            energy = s["energy_gross_j"]
            self.assertTrue(energy["value"] is None and energy["reason"] or energy["value"] > 0)
        recommended = run("recommend", self.run_dir, "--json")
        self.assertEqual(recommended.returncode, 0, recommended.stderr)
        self.assertIn(json.loads(recommended.stdout)["setting"], ("B0", "01"))

    def test_a_killed_sweep_goes_on_where_it_was(self):
        self.write(repetitions=40)
        process = subprocess.Popen([str(ISOLINE), "sweep", str(self.experiment), "-o", str(self.run_dir), "-q"],
                                   stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (self.run_dir / "results.jsonl").exists() and len(self.lines()) > 20:
                break
            time.sleep(0.01)
        children = children_of(process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = (self.run_dir / "results.jsonl").read_bytes()
        kept = kept[:kept.rfind(b"\n") + 1]
        self.assertGreater(kept.count(b"\n"), 20)
        self.assertLess(kept.count(b"\n"), 480, "the sweep was over before it was killed")
        time.sleep(0.5)
        for child in children:  # workers end with their parent
            self.assertFalse(os.path.exists(f"/proc/{child}/exe"), "a worker outlived its sweep")
        self.sweep()
        now = (self.run_dir / "results.jsonl").read_bytes()
        self.assertTrue(now.startswith(kept))
        runs = [json.loads(l) for l in self.lines() if json.loads(l)["kind"] == "run"]
        self.assertEqual(len({(r["setting"], r["case"], r["repetition"]) for r in runs}), 480)
        self.assertEqual(len(runs), 480)

    def test_a_crashing_worker_is_one_failed_case(self):
        self.write(repetitions=40)
        process = subprocess.Popen([str(ISOLINE), "sweep", str(self.experiment), "-o", str(self.run_dir), "-q"],
                                   stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        killed = False
        while not killed and time.monotonic() < deadline:
            if (self.run_dir / "results.jsonl").exists() and len(self.lines()) > 10:
                for child in children_of(process)[:1]:
                    os.kill(int(child), signal.SIGKILL)
                    killed = True
            time.sleep(0.01)
        _, errors = process.communicate(timeout=300)
        self.assertTrue(killed)
        runs = [json.loads(l) for l in self.lines() if json.loads(l)["kind"] == "run"]
        failed = [r for r in runs if r["error"]]
        self.assertEqual(len(failed), 1)
        self.assertIn("signal 9", failed[0]["error"])
        self.assertEqual(process.returncode, INTERNAL, errors)
        self.sweep()  # the next sweep makes it good

    # What can go wrong.
    def test_missing_reference(self):
        (self.dir / "labels" / "c3.nii.gz").unlink()
        self.refused(NOT_FOUND, "c3")
        self.assertFalse(self.run_dir.exists())

    def test_geometry_mismatch(self):
        raw = bytearray(gzip.decompress((self.dir / "labels" / "c2.nii.gz").read_bytes()))
        struct.pack_into("<f", raw, 76 + 4, struct.unpack_from("<f", raw, 76 + 4)[0] * 2)
        (self.dir / "labels" / "c2.nii.gz").write_bytes(gzip.compress(bytes(raw)))
        self.refused(USAGE, "c2.nii.gz", "spacing")

    def test_no_common_cases(self):
        for i in range(6):
            (self.dir / "labels" / f"c{i}.nii.gz").rename(self.dir / "labels" / f"d{i}.nii.gz")
        self.refused(NOT_FOUND, "c0", "reference")
        self.write(('references = "labels"', 'references = "labels"\nonly = ["zz"]'))
        self.refused(NOT_FOUND, "zz")

    def test_baseline_absent(self):
        self.write(('id = "TEST"', 'id = "TEST"\nbaseline = "B7"'))
        self.refused(USAGE, "B7", "e.toml")
        self.refused(USAGE, "B7", "e.toml", command="register")

    def test_delta_missing(self):
        self.write(("delta = 0.05", ""))
        self.refused(USAGE, "delta", "e.toml")

    def test_a_backend_that_does_not_exist(self):
        self.write(('backend = "native"', 'backend = "abacus"'))
        result = run("sweep", self.experiment, "-o", self.run_dir, "-q")
        self.assertEqual(result.returncode, INTERNAL, result.stderr)
        self.assertIn("abacus", result.stderr)

    def test_changed_threshold_is_said(self):
        self.assertEqual(run("register", self.experiment).returncode, 0)
        self.sweep()
        self.write(("delta = 0.05", "delta = 0.5"))
        again = run("sweep", self.experiment, "-o", self.run_dir)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn("CHANGED since registration", again.stdout)
        self.assertIn("0.05 -> 0.5", again.stdout)
        self.assertIn("changed", run("recommend", self.run_dir).stdout)
        refused = run("register", self.experiment)
        self.assertEqual(refused.returncode, USAGE)
        self.assertIn("0.05 -> 0.5", refused.stderr)

    def test_corrupt_results_line(self):
        self.sweep()
        path = self.run_dir / "results.jsonl"
        damaged = path.read_bytes().replace(b'"case":"c2"', b'"case":"c9"', 1)
        path.write_bytes(damaged)
        self.refused(CORRUPT, "results.jsonl:", "damaged")
        self.assertEqual(path.read_bytes(), damaged)

    def test_two_sweeps_into_one_folder(self):
        self.write(repetitions=40)
        first = subprocess.Popen([str(ISOLINE), "sweep", str(self.experiment), "-o", str(self.run_dir), "-q"],
                                 stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (self.run_dir / "results.jsonl").exists():
                time.sleep(0.01)
            self.refused(USAGE, "another sweep", "run")
        finally:
            first.terminate()
            first.wait(timeout=60)

    def test_a_folder_of_another_run(self):
        self.sweep()
        before = (self.run_dir / "results.jsonl").read_bytes()
        self.write(("step = 0.9", "step = 0.8"))
        self.refused(USAGE, "another run", "step: \"0.9\" -> \"0.8\"")
        self.assertEqual((self.run_dir / "results.jsonl").read_bytes(), before)

    def test_disk_full_in_mid_sweep(self):
        self.write(repetitions=30)
        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            self.skipTest("this machine does not allow a mount namespace")
        disk = self.dir / "disk"
        disk.mkdir()
        command = f'"{ISOLINE}" sweep "{self.experiment}" -o "{disk}/run" -q'
        script = (f'mount -t tmpfs -o size=300k tmpfs "{disk}"; {command}; echo "first $?"; '
                  f'cp "{disk}/run/results.jsonl" "{self.dir}/kept"; mount -o remount,size=50m "{disk}"; '
                  f'{command}; echo "second $?"; cp "{disk}/run/results.jsonl" "{self.dir}/all"')
        result = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=300)
        self.assertIn(f"first {EXHAUSTED}", result.stdout, result.stderr)
        self.assertIn("second 0", result.stdout, result.stderr)
        self.assertIn("kept", result.stderr)
        kept, complete = (self.dir / "kept").read_bytes(), (self.dir / "all").read_bytes()
        self.assertGreater(kept.count(b"\n"), 3)
        self.assertTrue(kept.endswith(b"\n"))
        self.assertTrue(complete.startswith(kept))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
