#!/usr/bin/env python3
"""Compares a build of isoline with official nnU-Net's stored results, stage by stage; non-zero exit on any violation.

    run_parity.py --isoline build/apps/isoline/isoline [--backend openvino --backend reference] [--json FILE] GOLDENS [GOLDENS ...]

GOLDENS is a folder of combinations made by make_goldens.py. Stages and their bounds:
  prep     preprocessed array                                        max |difference| <= 1e-5
  accum    window outputs of the reference -> logits                 bit-identical fp16
  export   logits of the reference -> label file (and geometry)      identical labels, data type, affine within 1e-5
  probs    the same -> probabilities                                 max |difference| <= 1e-6
  BACKEND  the whole program, fp32                                   <= 1e-5 of all voxels differ (pooled over all
                                                                     combinations), each within 0.01 of a tie
A hash check of the golden files comes first, so that an edited golden is not mistaken for a result.
"""
import argparse
import datetime
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

STAGES = ("prep", "accum", "export", "probs")


class Failed(Exception):
    pass


def call(args, log):
    """Runs one command, output kept for the message of a failure. Returns seconds."""
    start = time.perf_counter()
    done = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=3600)
    log.append({"command": " ".join(map(str, args)), "exit": done.returncode, "seconds": round(time.perf_counter() - start, 3)})
    if done.returncode != 0:
        tail = " | ".join(done.stdout.strip().splitlines()[-3:])
        raise Failed(f"exit {done.returncode}: {tail[:300]}")
    return log[-1]["seconds"]


def max_abs_difference(ours, reference):
    """max |a-b|; infinite when shapes differ or one is NaN where the other is not."""
    if ours.shape != reference.shape:
        raise Failed(f"shape {ours.shape} instead of {reference.shape}")
    a, b = ours.astype(np.float64), reference.astype(np.float64)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf")
    return float(np.nanmax(np.abs(a - b))) if a.size else 0.0


def bits_differing(ours, reference):
    if ours.shape != reference.shape or ours.dtype != reference.dtype:
        raise Failed(f"{ours.dtype}{ours.shape} instead of {reference.dtype}{reference.shape}")
    raw = {2: np.uint16, 4: np.uint32}[ours.dtype.itemsize]
    return int(np.count_nonzero(np.ascontiguousarray(ours).view(raw) != np.ascontiguousarray(reference).view(raw)))


def labels_differing(ours_path, reference_path):
    """Flat indices (z, y, x) of differing voxels; geometry and data type must agree."""
    ours, reference = nib.load(ours_path), nib.load(reference_path)
    if ours.shape != reference.shape:
        raise Failed(f"label shape {ours.shape} instead of {reference.shape}")
    if ours.get_data_dtype() != reference.get_data_dtype():
        raise Failed(f"label type {ours.get_data_dtype()} instead of {reference.get_data_dtype()}")
    if not np.allclose(ours.affine, reference.affine, atol=1e-5):
        raise Failed(f"label affine differs by {np.abs(ours.affine - reference.affine).max():.3g}")
    if not np.allclose(ours.header.get_zooms(), reference.header.get_zooms(), atol=1e-5):
        raise Failed("label spacing differs")
    a, b = np.asarray(ours.dataobj).T, np.asarray(reference.dataobj).T
    return np.flatnonzero(a.ravel() != b.ravel()), a.size


class Combination:
    def __init__(self, folder, isoline, work):
        self.folder, self.isoline, self.work = folder, isoline, work
        self.m = json.loads((folder / "manifest.json").read_text())
        self.log, self.seconds = [], {}

    def check_hashes(self):
        for name, digest in self.m["sha256"].items():
            if hashlib.sha256((self.folder / name).read_bytes()).hexdigest() != digest:
                raise Failed(f"golden {name} was changed after it was made")

    def model_args(self):
        return ["-m", self.folder / self.m["model"], "--checkpoint", self.m["checkpoint"], "--folds", ",".join(map(str, self.m["folds"])), "--quiet"]

    def images(self):
        return ["-i", *[self.folder / i for i in self.m["images"]]]

    def prep(self):
        out = self.work / "prep.npy"
        prev = ["--prev", self.folder / self.m["prev"]] if self.m["prev"] else []
        call([self.isoline, "debug", "preprocess", *self.model_args(), *self.images(), *prev, "-o", out], self.log)
        worst = max_abs_difference(np.load(out), np.load(self.folder / "preprocessed.npy"))
        return worst <= self.m["tolerances"]["preprocessed_max_abs"], f"{worst:.1e}"

    def accum(self):
        if not self.m["has_tiles"]:
            return None, "-"
        out = self.work / "accum.npy"
        shape = ",".join(map(str, self.m["preprocessed_shape"][1:]))
        call([self.isoline, "debug", "accumulate", *self.model_args(), "--tiles", self.folder / "tiles.npy", "--shape", shape, "--step", self.m["step"],
              "-o", out], self.log)
        first = self.folder / f"logits_fold_{self.m['folds'][0]}.npy"
        wrong = bits_differing(np.load(out), np.load(first if first.exists() else self.folder / "logits.npy"))
        return wrong == 0, "identical" if wrong == 0 else f"{wrong} differ"

    def export(self):
        out = self.work / "export.nii.gz"
        probabilities = ["--probabilities", self.work / "export.npz"] if self.m["save_probabilities"] else []
        prev = ["--prev", self.folder / self.m["prev"]] if self.m["prev"] else []
        call([self.isoline, "debug", "export", *self.model_args(), *self.images(), *prev, "--logits", self.folder / "logits.npy", "-o", out, *probabilities],
             self.log)
        wrong, _ = labels_differing(out, self.folder / "labels.nii.gz")
        return len(wrong) == 0, "identical" if len(wrong) == 0 else f"{len(wrong)} differ"

    def probs(self):
        if not self.m["save_probabilities"]:
            return None, "-"
        path = self.work / "export.npz"
        if not path.exists():
            return False, "no file"
        ours, reference = np.load(path)["probabilities"], np.load(self.folder / "probabilities.npz")["probabilities"]
        if ours.dtype != reference.dtype:
            raise Failed(f"probabilities are {ours.dtype}")
        worst = max_abs_difference(ours, reference)
        return worst <= 1e-6, f"{worst:.1e}"

    def end_to_end(self, backend):
        out = self.work / f"segment_{backend}"
        args = [self.isoline, "segment", *self.model_args(), "-i", self.folder / "images", "-o", out, "--backend", backend, "--precision", "fp32",
                "--step", self.m["step"], "--tta", "all" if self.m["tta"] else "none"]
        if self.m["prev_dir"]:
            args += ["--prev-stage", self.folder / self.m["prev_dir"]]
        if self.m["save_probabilities"]:
            args += ["--save-probabilities"]
        self.seconds[backend] = call(args, self.log)
        wrong, size = labels_differing(out / "case.nii.gz", self.folder / "labels.nii.gz")
        close, margins = np.load(self.folder / "close_voxels.npy"), np.load(self.folder / "close_margins.npy")
        near = np.isin(wrong, close)
        gap = float(margins[np.isin(close, wrong)].max()) if near.any() else 0.0
        text = "0" if len(wrong) == 0 else f"{len(wrong)} (gap {gap:.1e})" if near.all() else f"{len(wrong)}, {int((~near).sum())} NOT CLOSE"
        if self.m["save_probabilities"] and not (out / "case.npz").exists():
            raise Failed("no probabilities written")
        return bool(near.all()), text, len(wrong), size


def table(rows, header):
    widths = [max(len(str(r[i])) for r in [header, *rows]) for i in range(len(header))]
    line = lambda r: "  ".join(str(c).ljust(w) for c, w in zip(r, widths)).rstrip()
    print(line(header))
    print("  ".join("-" * w for w in widths))
    for r in rows:
        print(line(r))


def run_set(goldens, args, report, pooled):
    combinations = [p.parent for p in sorted(goldens.glob("*/manifest.json"))]
    if args.only:
        combinations = [c for c in combinations if c.name in args.only.split(",")]
    if not combinations:
        print(f"{goldens}: no combinations there", file=sys.stderr)
        return False
    rows, good = [], True
    for folder in combinations:
        with tempfile.TemporaryDirectory() as work:
            c = Combination(folder, args.isoline, Path(work))
            entry, row = {"tests": c.m["tests"], "windows": c.m["windows"], "voxels": c.m["output_voxels"]}, [folder.name]
            try:
                c.check_hashes()
            except Failed as error:
                print(f"{folder.name}: {error}", file=sys.stderr)
                good = False
            for stage in [*STAGES, *args.backend]:
                if args.stages and stage not in args.stages.split(","):
                    row.append("")
                    continue
                try:
                    if stage in STAGES:
                        passed, text = getattr(c, stage)()
                    else:
                        passed, text, wrong, size = c.end_to_end(stage)
                        pooled[stage][0] += wrong
                        pooled[stage][1] += size
                except (Failed, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
                    passed, text = False, "ERROR"
                    print(f"{folder.name} / {stage}: {error}", file=sys.stderr)
                entry[stage] = {"passed": passed, "result": text}
                if passed is False:
                    good, text = False, f"{text} FAIL"
                row.append(text)
            entry["seconds"], entry["log"] = c.seconds, c.log
            report.setdefault(str(goldens), {})[folder.name] = entry
        rows.append(row)
    table(rows, ["combination", "prep max|d|", "accumulate", "export", "probabilities", *[f"{b}: voxels" for b in args.backend]])
    print()
    return good


def judge_pooled(pooled):
    """The bound of 1e-5 is for volumes; single combinations have some 10^4 voxels, so all are judged together."""
    good = True
    for backend, (wrong, size) in pooled.items():
        if size:
            fraction = wrong / size
            passed = fraction <= 1e-5
            good &= passed
            print(f"{backend}: {wrong} of {size} voxels differ ({fraction:.1e}, bound 1e-5){'' if passed else ' FAIL'}")
    print()
    return good


class Tee:
    """Prints, and keeps what it printed for the file in docs/measurements."""

    def __init__(self, path):
        self.path, self.text, self.terminal = path, "", sys.stdout

    def write(self, text):
        self.text += text
        return self.terminal.write(text)

    def flush(self):
        self.terminal.flush()

    def save(self, versions):
        git = subprocess.run(["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        cpu = next((l.split(":", 1)[1].strip() for l in Path("/proc/cpuinfo").read_text().splitlines() if l.startswith("model name")), "unknown")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(
            f"# Parity with official nnU-Net, {datetime.date.today()}\n\nDevice: {cpu}. Commit: `{git.stdout.strip()}`. Command: `make parity`.\n"
            "Reference: " + ", ".join(f"{k} {v}" for k, v in versions.items()) + f"\n\n```\n{self.text.strip()}\n```\n")


def self_test():
    """The comparisons notice the smallest difference they are meant to notice."""
    a = np.arange(12, dtype=np.float16).reshape(3, 4)
    b = a.copy()
    b[1, 2] = np.nextafter(b[1, 2], np.float16(100))
    assert bits_differing(a, a) == 0 and bits_differing(a, b) == 1
    assert bits_differing(np.zeros(1, np.float16), -np.zeros(1, np.float16)) == 1
    assert max_abs_difference(a, b) > 0 and max_abs_difference(a, a) == 0
    nan = a.copy()
    nan[0, 0] = np.nan
    assert max_abs_difference(a, nan) == float("inf")
    with tempfile.TemporaryDirectory() as work:
        paths = []
        for i, value in enumerate((0, 1)):
            data = np.zeros((4, 3, 2), np.uint8)
            data[3, 0, 1] = value
            paths.append(Path(work) / f"{i}.nii.gz")
            nib.save(nib.Nifti1Image(data, np.eye(4)), paths[-1])
        assert list(labels_differing(*paths)[0]) == [(1 * 3 + 0) * 4 + 3]
        nib.save(nib.Nifti1Image(data, np.diag([1, 1, 1.01, 1])), paths[0])
        try:
            labels_differing(*paths)
            raise AssertionError("a changed affine went unnoticed")
        except Failed:
            pass
    print("self-test passed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("goldens", nargs="*", type=Path)
    parser.add_argument("--isoline", type=Path)
    parser.add_argument("--backend", action="append", default=[])
    parser.add_argument("--stages", default="", help="comma list out of prep, accum, export, probs and the backends")
    parser.add_argument("--only", default="")
    parser.add_argument("--report", type=Path, help="also write the table to this Markdown file")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    if args.self_test:
        self_test()
        return 0
    if not args.goldens or not args.isoline:
        parser.error("GOLDENS and --isoline are needed")
    args.isoline = args.isoline.resolve()
    args.backend = args.backend or ["openvino"]
    if args.report:
        sys.stdout = Tee(args.report)
    report, good, pooled = {}, True, {b: [0, 0] for b in args.backend}
    for goldens in args.goldens:
        print(f"== {goldens}")
        good &= run_set(goldens, args, report, pooled)
    good &= judge_pooled(pooled)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"passed": bool(good), "sets": report}, indent=1) + "\n")
    print("parity: PASSED" if good else "parity: FAILED")
    if args.report:
        sys.stdout.save(json.loads(next(args.goldens[0].glob("*/manifest.json")).read_text())["versions"])
        sys.stdout = sys.stdout.terminal
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
