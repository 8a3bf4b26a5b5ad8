#!/usr/bin/env python3
"""`segment --profile`: the trace, the table and the JSON agree with each other and with the network.

Usage: profile_test.py ISOLINE GOLDENS. Standard library only. Times are checked for order and sums, never for size.
"""
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ISOLINE = pathlib.Path(sys.argv[1]).resolve()
GOLDENS = pathlib.Path(sys.argv[2]).resolve()
GOLDEN = GOLDENS / "plain3d_iso_regions"
READ, SEGMENT, WRITE, DEVICE, LAYERS = 1, 2, 3, 4, 5
TIMED = {"native"}  # CPU backends that time their layers


def cpu_backends():
    listed = json.loads(subprocess.run([ISOLINE, "devices", "--json"], capture_output=True, text=True, check=True).stdout)
    return [b["name"] for b in listed["backends"] if b["kind"] == "cpu" and b["available"]]


def network_macs():
    """Of every convolution of the golden's network for one patch, from its plans alone."""
    plan = json.loads((GOLDEN / "model" / "plans.json").read_text())["configurations"]["3d_fullres"]
    net = plan["architecture"]["arch_kwargs"]
    features, taps = net["features_per_stage"], [math.prod(k) for k in net["kernel_sizes"]]
    voxels, shape = [], plan["patch_size"]
    for stride in net["strides"]:
        shape = [n // s for n, s in zip(shape, stride)]
        voxels.append(math.prod(shape))
    macs, channels = [], 1
    for s, count in enumerate(net["n_conv_per_stage"]):
        for _ in range(count):
            macs.append(voxels[s] * taps[s] * channels * features[s])
            channels = features[s]
    for s in range(len(features) - 2, -1, -1):
        macs.append(voxels[s] * features[s + 1] * features[s])  # each output voxel has one tap
        channels = 2 * features[s]
        for _ in range(net["n_conv_per_stage_decoder"][s]):
            macs.append(voxels[s] * taps[s] * channels * features[s])
            channels = features[s]
    macs.append(voxels[0] * features[0] * 3)  # three regions
    return macs


def inside(inner, outer):
    slack = 1e-3 + 1e-9 * outer["ts"]  # half a rounding on either side
    return outer["ts"] - slack <= inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + slack


class Profile(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="isoline_profile_"))
        self.cases = self.dir / "cases"
        self.cases.mkdir()
        for name in ("a", "b"):
            shutil.copy(GOLDEN / "images" / "case_0000.nii.gz", self.cases / f"{name}_0000.nii.gz")

    def tearDown(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def segment(self, *extra, code=0):
        command = [ISOLINE, "segment", "-m", GOLDEN / "model", "-i", self.cases, "-o", self.dir / "out", *extra]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def profile(self, *extra):
        report = json.loads(self.segment("--json", "--profile", self.dir / "trace.json", *extra).stdout)
        trace = json.loads((self.dir / "trace.json").read_text())
        return report, trace, [e for e in trace["traceEvents"] if e["ph"] == "X"]

    def check_nesting(self, events):
        """On one row, two events lie one after the other or one inside the other."""
        for row in {e["tid"] for e in events}:
            open_events = []
            for e in sorted((e for e in events if e["tid"] == row), key=lambda e: (e["ts"], -e["dur"])):
                while open_events and open_events[-1]["ts"] + open_events[-1]["dur"] <= e["ts"] + 1e-3 + 1e-9 * e["ts"]:
                    open_events.pop()
                if open_events:
                    self.assertTrue(inside(e, open_events[-1]), (e, open_events[-1]))
                open_events.append(e)

    def check_trace(self, report, events):
        for e in events:
            self.assertGreaterEqual(e["dur"], 0)
            self.assertGreaterEqual(e["ts"], 0)
            self.assertEqual(e["pid"], 1)
        self.check_nesting(events)
        of = lambda row, name: [e for e in events if e["tid"] == row and e["name"] == name]
        for row, name in ((READ, "read"), (SEGMENT, "preprocess"), (SEGMENT, "network"), (WRITE, "write")):
            self.assertEqual([e["args"]["case"] for e in of(row, name)], ["a", "b"], name)
        self.assertEqual([e["name"] for e in events if e["cat"] == "case"], ["a", "b"])
        networks, forwards, exports = of(SEGMENT, "network"), of(SEGMENT, "forward"), of(SEGMENT, "export")
        self.assertEqual(sum(e["args"]["forwards"] for e in forwards), sum(c["forwards"] for c in report["cases"]))
        self.assertEqual(len(networks), 2)
        self.assertGreater(len(exports), 1)
        for e in forwards + exports:  # on a CPU labels are decided while the network's stage runs
            self.assertEqual(sum(inside(e, n) for n in networks), 1)
        self.assertFalse([e for e in events if e["tid"] == DEVICE])
        # The trace's stages are those of the report.
        for case, network in zip(report["cases"], networks):
            s = case["stages_s"]
            own = sum(e["dur"] for e in exports if inside(e, network))
            own += sum(e["dur"] for e in of(WRITE, "postprocess") if e["args"]["case"] == case["id"])
            self.assertAlmostEqual(own * 1e-6, s["export"], delta=0.05)
            self.assertAlmostEqual(network["dur"] * 1e-6, s["network"] + s["export"], delta=0.1)

    def check_stages(self, report):
        for case in report["cases"]:
            self.assertGreaterEqual(min(case["stages_s"].values()), 0)
            stages = sum(case["stages_s"].values())
            self.assertLessEqual(stages, case["total_s"] + 1e-6)
            self.assertGreater(stages, case["total_s"] - 0.1)  # what lies between the clocks
        p = report["profile"]
        self.assertEqual(list(p["stages_s"]), ["read", "preprocess", "network", "export", "write"])
        for name, seconds in p["stages_s"].items():
            self.assertAlmostEqual(seconds, sum(c["stages_s"][name] for c in report["cases"]), places=9)
        self.assertAlmostEqual(p["total_s"], sum(c["total_s"] for c in report["cases"]), places=9)
        self.assertEqual([c["id"] for c in p["cases"]], ["a", "b"])

    def test_every_cpu_backend(self):
        backends = cpu_backends()
        self.assertIn("reference", backends)
        for backend in backends:
            with self.subTest(backend):
                report, trace, events = self.profile("--backend", backend)
                self.check_stages(report)
                self.check_trace(report, events)
                p = report["profile"]
                self.assertIsNone(p["ceilings"])
                self.assertIn(f"'{backend}'", p["ceilings_not_available"])
                self.assertEqual(trace["otherData"]["ran_on"], report["ran_on"])
                if backend not in TIMED:
                    self.assertIsNone(p["layers"])
                    self.assertIn(backend, p["layers_not_available"])
                    self.assertFalse([e for e in events if e["tid"] == LAYERS])
                    continue
                self.assertIsNone(p["layers_not_available"])
                layers = p["layers"]
                self.assertEqual([l["macs"] for l in layers if l["macs"]], network_macs())
                self.assertEqual(sum(l["loses_most"] for l in layers), 3)
                marked = min(l["duration_ms"] for l in layers if l["loses_most"])
                self.assertGreaterEqual(marked, max(l["duration_ms"] for l in layers if not l["loses_most"]))
                for l in layers:
                    self.assertIsNone(l["floor_ms"])  # no ceilings, no floor: not 0
                    self.assertGreater(l["bytes"], 0)
                    self.assertAlmostEqual(l["flops_per_s"] * l["duration_ms"] * 1e-3, 2 * l["macs"], delta=1)
                row = [e for e in events if e["tid"] == LAYERS]
                self.assertEqual([e["name"] for e in row if e["cat"] == "layer"], [l["name"] for l in layers])
                whole = [e for e in row if e["cat"] == "forward"]
                self.assertEqual(len(whole), 1)
                self.assertTrue(all(inside(e, whole[0]) for e in row))
                self.assertAlmostEqual(whole[0]["dur"] * 1e-3, p["layers_sum_ms"], places=3)
                # A nanosecond is beyond what a double of microseconds since the start can lose.
                self.assertGreaterEqual(whole[0]["ts"] + 1e-3, max(e["ts"] + e["dur"] for e in events if e["tid"] == WRITE))

    def test_cases_that_overlap_have_rows_of_their_own(self):
        report, _, events = self.profile("--backend", "reference", "--overlap", "on", "--tta", "none")
        self.check_stages(report)
        self.check_trace(report, events)
        for case in report["cases"]:
            read = next(e for e in events if e["tid"] == READ and e["args"]["case"] == case["id"])
            self.assertAlmostEqual(read["ts"] * 1e-6, case["timeline_s"]["read"][0], places=6)

    def test_postprocessing_comes_before_writing_and_counts_as_export(self):
        report, _, events = self.profile("--backend", "reference", "--tta", "none", "--overlap", "on", "--postprocessing",
                                         GOLDENS.parent / "checkpoint" / "postprocessing_5.pkl")
        self.check_stages(report)
        self.check_nesting(events)
        row = [(e["name"], e["args"]["case"]) for e in sorted((e for e in events if e["tid"] == WRITE), key=lambda e: e["ts"])]
        self.assertEqual(row, [("postprocess", "a"), ("write", "a"), ("postprocess", "b"), ("write", "b")])
        for case in report["cases"]:
            post, = (e for e in events if e["name"] == "postprocess" and e["args"]["case"] == case["id"])
            self.assertAlmostEqual(post["ts"] * 1e-6, case["timeline_s"]["write"][0], places=6)
            self.assertGreaterEqual(case["stages_s"]["export"] + 1e-6, post["dur"] * 1e-6)

    def test_the_table(self):
        text = self.segment("--backend", "native" if "native" in cpu_backends() else "reference", "--profile",
                            self.dir / "trace.json").stdout
        for stage in ("read", "preprocess", "network", "export", "write", "total"):
            self.assertEqual(sum(line.split()[:1] == [stage] for line in text.splitlines()), 1, text)
        self.assertIn("ceilings: not available", text)
        if "native" in cpu_backends():
            rows = [line for line in text.splitlines() if "conv " in line]
            self.assertEqual(len(rows), len(network_macs()), text)
            self.assertEqual(sum(line.startswith("* ") for line in text.splitlines()), 3)
            self.assertEqual({line.split()[-1] for line in rows}, {"n/a"})
        self.assertFalse(self.segment("--backend", "reference", "--quiet", "--profile", self.dir / "trace.json").stdout)

    def test_labels_are_the_same_and_without_it_nothing_is_said(self):
        with_profile, _, _ = self.profile("--backend", "reference")
        labels = [(self.dir / "out" / f"{n}.nii.gz").read_bytes() for n in ("a", "b")]
        (self.dir / "trace.json").unlink()
        report = json.loads(self.segment("--json", "--backend", "reference").stdout)
        self.assertNotIn("profile", report)
        self.assertFalse((self.dir / "trace.json").exists())
        self.assertEqual([(self.dir / "out" / f"{n}.nii.gz").read_bytes() for n in ("a", "b")], labels)
        self.assertEqual([c["label_voxels"] for c in report["cases"]], [c["label_voxels"] for c in with_profile["cases"]])

    def test_a_place_that_cannot_be_written_is_refused_before_any_work(self):
        self.segment("--backend", "reference", "--profile", self.dir / "nowhere" / "trace.json", code=3)
        self.assertFalse(list((self.dir / "out").glob("*.nii.gz")))

    def test_a_file_name_that_is_no_utf8_still_gives_json(self):
        (self.cases / "a_0000.nii.gz").rename(os.fsdecode(os.fsencode(self.cases) + b"/a\xff_0000.nii.gz"))
        self.segment("--backend", "reference", "--tta", "none", "--quiet", "--profile", self.dir / "trace.json")
        events = json.loads((self.dir / "trace.json").read_text())["traceEvents"]
        self.assertEqual([e["name"] for e in events if e.get("cat") == "case"], ["a\ufffd", "b"])

    def test_no_case_no_trace(self):
        for path in self.cases.iterdir():
            path.write_bytes(b"\x1f\x8b garbage")
        self.segment("--backend", "reference", "--profile", self.dir / "trace.json", code=4)
        self.assertFalse((self.dir / "trace.json").exists())


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=1)
