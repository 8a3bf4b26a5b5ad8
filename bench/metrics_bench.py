#!/usr/bin/env python3
"""Surface Dice and HD95 of Isoline beside DeepMind's surface-distance, on this machine, in one run.

    python3 bench/metrics_bench.py --bench build-release/src/isoline/metrics/metrics_bench [--kits FOLDER] [--repeat 2]

Needs numpy, scipy, nibabel and surface-distance. FOLDER: label maps of KiTS23 cases; their slices are repeated or left
out to reach 266. Without it, ellipsoids. The prediction is the reference moved by a voxel or two, with a piece missing
and a ball too many. Both programs judge the three KiTS23 regions. Clock of both: label maps in memory -> surface Dice and HD95;
DeepMind's share without the making of its boolean masks stands beside it. Writes
docs/measurements/<date>-surface-metrics.md.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time
import warnings

import nibabel
import numpy as np
import scipy

warnings.filterwarnings("ignore")
np.Inf = np.inf  # surface-distance 0.1 is older than NumPy 2
import surface_distance  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
REGIONS = {"kidney_and_mass": ((1, 2, 3), 1.0330772532390826), "mass": ((2, 3), 1.1328796488598762), "tumor": ((2,), 1.1498198361434828)}
SLICES, PLANE = 266, 512


def ball(shape, centre, radius_mm, spacing):
    return sum(((np.arange(n).reshape([-1 if a == b else 1 for b in range(3)]) - c) * s / r)**2
               for a, (n, c, r, s) in enumerate(zip(shape, centre, radius_mm, spacing))) <= 1


def ellipsoids(scale):
    """Two kidneys with a tumour and a cyst each, [z, y, x]; scale 1 is life size."""
    shape, spacing = (SLICES, PLANE, PLANE), (1.5, 0.78125, 0.78125)
    m = np.zeros(shape, np.uint8)
    for x, side in ((150, -1), (362, 1)):
        m[ball(shape, (133, 280, x), (60 * scale, 28 * scale, 28 * scale), spacing)] = 1
        m[ball(shape, (110, 280, x + side * 20), (20 * scale,) * 3, spacing)] = 2
        m[ball(shape, (170, 260, x), (9 * scale,) * 3, spacing)] = 3
    return m, spacing


def kits(path):
    image = nibabel.load(path)
    m = np.asanyarray(image.dataobj).astype(np.uint8).transpose(2, 1, 0)  # [z, y, x] of the file
    spacing = [float(s) for s in image.header.get_zooms()[::-1]]
    axis = int(np.argmin(m.shape))
    index = np.round(np.linspace(0, m.shape[axis] - 1, SLICES)).astype(int)
    spacing[axis] *= (m.shape[axis] - 1) / (SLICES - 1)
    return np.ascontiguousarray(np.take(m, index, axis)), tuple(spacing)


def predicted(reference, spacing):
    p = np.roll(reference, (1, 1, -2), (0, 1, 2))
    z, y, x = (int(v) for v in np.median(np.nonzero(reference == 2), 1))
    p[z:z + 4, y:y + 9, x:x + 9] = 0
    p[ball(p.shape, [n // 2 for n in p.shape], (8, 8, 8), spacing)] = 2
    return p


def mask_of(m, labels):
    """As KiTS23's evaluation makes it."""
    if len(labels) == 1:
        return m == labels[0]
    mask = np.zeros(m.shape, bool)
    for label in labels:
        mask[m == label] = True
    return mask


def official(reference, prediction, spacing, repeat):
    out = {}
    for name, (labels, tolerance) in REGIONS.items():
        whole, bare = [], []
        for _ in range(repeat):
            start = time.perf_counter()
            gt, pr = mask_of(reference, labels), mask_of(prediction, labels)
            made = time.perf_counter()
            d = surface_distance.compute_surface_distances(gt, pr, spacing)
            dice = surface_distance.compute_surface_dice_at_tolerance(d, tolerance)
            hd95 = surface_distance.compute_robust_hausdorff(d, 95)
            end = time.perf_counter()
            whole.append(end - start)
            bare.append(end - made)
        out[name] = {"s": whole, "bare_s": bare, "surface_dice": float(dice), "hd95_mm": float(hd95),
                     "surfels": len(d["surfel_areas_gt"]) + len(d["surfel_areas_pred"])}
        print("   ", name, out[name], flush=True)
    return out


def ours(bench, reference, prediction, spacing, runs, threads, work):
    paths = []
    for name, m in (("reference", reference), ("prediction", prediction)):
        paths.append(work / f"{name}.nii")
        nibabel.save(nibabel.Nifti1Image(m.transpose(2, 1, 0), np.diag([*spacing[::-1], 1])), paths[-1])
    spacing_read = tuple(float(v) for v in nibabel.load(paths[0]).header.get_zooms()[::-1])  # float32 in the file
    return json.loads(subprocess.run([bench, *paths, str(runs), str(threads)], check=True, stdout=subprocess.PIPE, text=True).stdout), spacing_read


def seconds(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=pathlib.Path, required=True)
    parser.add_argument("--kits", type=pathlib.Path)
    parser.add_argument("--kits-cases", default="case_00404,case_00433,case_00451")
    parser.add_argument("--repeat", type=int, default=2, help="runs of DeepMind's; ours runs ten times as often")
    args = parser.parse_args()
    maps = []
    if args.kits:
        maps = [(f"KiTS23 {c}, {SLICES} slices", lambda c=c: kits(args.kits / f"{c}.nii.gz")) for c in args.kits_cases.split(",")]
    maps += [("ellipsoids, life size", lambda: ellipsoids(1)), ("ellipsoids, three times life size", lambda: ellipsoids(3))]
    cores = len(os.sched_getaffinity(0))
    rows, cases, singles, bare_cases, worst, load = [], [], [], [], 0.0, os.getloadavg()[0]

    def row(name, region, surfels, slow, bare, fast, one, figures):
        ratio, bare_ratio, single = (statistics.median(a) / statistics.median(b) for a, b in ((slow, fast), (bare, fast), (slow, one)))
        rows.append(f"| {name} | {region} | {surfels} | {seconds(slow)} | {seconds(bare)} | {seconds(fast)} | **{ratio:.0f}** | {bare_ratio:.0f} | {single:.0f} | {figures} |")
        print(rows[-1], flush=True)
        return ratio, bare_ratio

    with tempfile.TemporaryDirectory() as work:
        for name, make in maps:
            reference, spacing = make()
            prediction = predicted(reference, spacing)
            print(name, reference.shape, spacing, flush=True)
            fast, spacing = ours(args.bench, reference, prediction, spacing, args.repeat * 10, cores, pathlib.Path(work))
            single, _ = ours(args.bench, reference, prediction, spacing, args.repeat * 2, 1, pathlib.Path(work))
            slow = official(reference, prediction, spacing, args.repeat)
            for region in REGIONS:
                a, b = fast["regions"][region], slow[region]
                for key in ("surface_dice", "hd95_mm"):
                    worst = max(worst, abs(a[key] - b[key]) / max(abs(b[key]), 1e-300))
                singles.append(row(name, region, b["surfels"], b["s"], b["bare_s"], a["alone_s"], single["regions"][region]["alone_s"],
                                   f"{a['surface_dice']:.6f} | {a['hd95_mm']:.4f}")[0])
            whole, bare = ([sum(t) for t in zip(*(slow[r][k] for r in REGIONS))] for k in ("s", "bare_s"))
            found = row(name, "all three", sum(slow[r]["surfels"] for r in REGIONS), whole, bare, fast["all_regions_s"], single["all_regions_s"], " | ")
            cases.append(found[0])
            bare_cases.append(found[1])
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    cpu = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
    kits_option = f" --kits KITS23_LABELS --kits-cases {args.kits_cases}" if args.kits else ""
    lines = [
        f"# Surface Dice and HD95: Isoline beside surface-distance, {datetime.date.today()}", "",
        f"Device: {cpu}, {cores} cores, shared: load average {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end. Commit `{commit}`. "
        f"numpy {np.__version__}, scipy {scipy.__version__}, surface-distance 0.1 (DeepMind). "
        f"Command: `python3 bench/metrics_bench.py --bench METRICS_BENCH{kits_option} --repeat {args.repeat}`.  ",
        f"Label maps of {PLANE}×{PLANE}×{SLICES} voxels, KiTS23 regions and tolerances; the script says how they are made. Clock of both: label maps in "
        "memory → surface Dice and HD95. DeepMind's code wants boolean masks, made here as KiTS23's evaluation makes them; the column "
        "without masks leaves that out (Isoline's time still holds its own reading of the label maps). It runs on one thread. "
        f"Seconds: median (minimum–maximum) of {args.repeat} and {args.repeat * 10} runs; ratios are of medians.", "",
        f"**A whole case (three regions): at least {min(cases):.0f} times as fast, {min(bare_cases):.0f} times without the making of the masks; one region "
        f"alone: at least {min(singles):.0f} times. Largest relative difference of any surface Dice or HD95: {worst:.1e}.**", "",
        f"| maps | region | surface elements | DeepMind, s | without masks, s | Isoline, {cores} threads, s | ratio | without masks | ratio on 1 thread | surface Dice | HD95, mm |",
        "|---|---|---|---|---|---|---|---|---|---|---|", *rows]
    path = ROOT / "docs" / "measurements" / f"{datetime.date.today()}-surface-metrics.md"
    path.write_text("\n".join(lines) + "\n")
    print("wrote", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
