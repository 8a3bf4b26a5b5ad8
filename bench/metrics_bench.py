#!/usr/bin/env python3
"""Surface Dice and HD95 of Isoline beside DeepMind's surface-distance, on this machine, in one run.

    python3 bench/metrics_bench.py --bench build-release/src/isoline/metrics/metrics_bench [--kits FOLDER] [--repeat 2]

Needs numpy, scipy, nibabel and surface-distance. FOLDER: label maps of KiTS23 cases; their slices are repeated or left
out to reach 266. Without it, ellipsoids. The prediction is the reference moved by a voxel or two, with a piece missing
and a ball too many. Both programs judge the three KiTS23 regions. Clock: arrays in memory -> surface Dice and HD95; DeepMind's
starts with boolean masks, Isoline's with the label maps. Writes docs/measurements/<date>-surface-metrics.md.
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


def official(reference, prediction, spacing, repeat):
    out = {}
    for name, (labels, tolerance) in REGIONS.items():
        gt, pr = np.isin(reference, labels), np.isin(prediction, labels)
        times = []
        for _ in range(repeat):
            start = time.perf_counter()
            d = surface_distance.compute_surface_distances(gt, pr, spacing)
            dice = surface_distance.compute_surface_dice_at_tolerance(d, tolerance)
            hd95 = surface_distance.compute_robust_hausdorff(d, 95)
            times.append(time.perf_counter() - start)
        out[name] = {"s": times, "surface_dice": float(dice), "hd95_mm": float(hd95), "surfels": len(d["surfel_areas_gt"]) + len(d["surfel_areas_pred"])}
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
    rows, ratios, worst = [], [], 0.0
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
                ratios.append(statistics.median(b["s"]) / statistics.median(a["alone_s"]))
                one = statistics.median(b["s"]) / statistics.median(single["regions"][region]["alone_s"])
                rows.append(f"| {name} | {region} | {b['surfels']} | {seconds(b['s'])} | {seconds(a['alone_s'])} | **{ratios[-1]:.0f}** | {one:.0f} | {a['surface_dice']:.6f} | {a['hd95_mm']:.4f} |")
            total = [sum(t) for t in zip(*(slow[r]["s"] for r in REGIONS))]
            ratios.append(statistics.median(total) / statistics.median(fast["all_regions_s"]))
            one = statistics.median(total) / statistics.median(single["all_regions_s"])
            rows.append(f"| {name} | all three | | {seconds(total)} | {seconds(fast['all_regions_s'])} | **{ratios[-1]:.0f}** | {one:.0f} | memory beyond the maps: {fast['extra_rss_bytes'] / 2**20:.0f} MiB | |")
            print(rows[-1], flush=True)
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    cpu = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
    import scipy
    kits_option = f" --kits KITS23_LABELS --kits-cases {args.kits_cases}" if args.kits else ""
    lines = [
        f"# Surface Dice and HD95: Isoline beside surface-distance, {datetime.date.today()}", "",
        f"Device: {cpu}, {cores} cores; other work ran on it at times. Commit `{commit}`. numpy {np.__version__}, scipy {scipy.__version__}, "
        f"surface-distance 0.1 (DeepMind). Command: `python3 bench/metrics_bench.py --bench METRICS_BENCH{kits_option} --repeat {args.repeat}`.  ",
        f"Label maps of {PLANE}×{PLANE}×{SLICES} voxels, KiTS23 regions and tolerances; how they are made: the script. "
        "Clock of both: arrays in memory → surface Dice and HD95 (DeepMind's from boolean masks, its code being single-threaded; Isoline's from label maps). "
        f"Seconds: median (minimum–maximum) of {args.repeat} and {args.repeat * 10} runs. Ratio: of the medians, Isoline on {cores} threads and on 1. ", "",
        f"**Lowest ratio {min(ratios):.0f}. Largest relative difference of any surface Dice or HD95: {worst:.1e}.**", "",
        "| maps | region | surface elements | DeepMind, s | Isoline, s | ratio | on 1 thread | surface Dice | HD95, mm |", "|---|---|---|---|---|---|---|---|---|", *rows]
    path = ROOT / "docs" / "measurements" / f"{datetime.date.today()}-surface-metrics.md"
    path.write_text("\n".join(lines) + "\n")
    print("wrote", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
