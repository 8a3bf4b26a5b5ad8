#!/usr/bin/env python3
"""Dice of the bundled model on held-out phantoms, through the program itself, for a few settings.

    python3 bench/held_out.py --isoline build-release/apps/isoline/isoline [--seeds 12]

Writes docs/measurements/<date>-held-out-engine.md. Seeds 1 to N; training used 100000 and up. Standard library only.
"""
import argparse
import datetime
import json
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "kidney_phantom"
SETTINGS = (("fp32, step .5, TTA", ["--precision", "fp32", "--step", "0.5", "--tta", "all"]),
            ("bf16, step .5, TTA", ["--precision", "bf16", "--step", "0.5", "--tta", "all"]),
            ("bf16, step .75, TTA", ["--precision", "bf16", "--step", "0.75", "--tta", "all"]),
            ("bf16, step .5, no TTA", ["--precision", "bf16", "--step", "0.5", "--tta", "none"]),
            ("bf16, step .75, no TTA", ["--precision", "bf16", "--step", "0.75", "--tta", "none"]))


def run(*command):
    return json.loads(subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isoline", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=12)
    args = parser.parse_args()
    rows, ran_on = [], set()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        run(args.isoline, "phantom", "--seed", 1, "--count", args.seeds, "-o", work, "--json")
        for name, options in SETTINGS:
            out = work / "out"
            report = run(args.isoline, "segment", "-m", MODEL, "-i", work / "imagesTs", "-o", out, "--json", *options)
            scores = run(args.isoline, "evaluate", "-m", MODEL, "-p", out, "-r", work / "labelsTs", "--json")
            ran_on.add(report["ran_on"])
            seconds = [c["total_s"] for c in report["cases"]]
            dice = {r: scores["mean"][r]["dice_nnunet"] for r in scores["mean"]}
            lowest = min(c["regions"]["tumor"]["dice_nnunet"] for c in scores["cases"]
                         if c["regions"]["tumor"]["dice_nnunet"] is not None)
            rows.append((name, dice, lowest, statistics.median(seconds), min(seconds), max(seconds), report["peak_rss_bytes"]))
            print(rows[-1], flush=True)
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    cpu = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
    lines = [f"# Held-out Dice of models/kidney_phantom through the engine, {datetime.date.today()}", "",
             f"Device: {cpu}; ran on {', '.join(sorted(ran_on))}. Commit `{commit}`. Command: `python3 bench/held_out.py --isoline ISOLINE --seeds {args.seeds}`.  ",
             f"{args.seeds} phantoms of 96×256×256 at 2.5×1.3×1.3 mm, seeds 1 to {args.seeds}. Mean Dice, nnU-Net's convention (both empty: left out). "
             "Seconds a case file to file: median (minimum–maximum).", "",
             "| setting | kidney | masses | tumour | lowest tumour | s/case | peak RSS |", "|---|---|---|---|---|---|---|"]
    for name, dice, lowest, median, low, high, rss in rows:
        lines.append(f"| {name} | {dice['kidney']:.4f} | {dice['masses']:.4f} | {dice['tumor']:.4f} | {lowest:.3f} | "
                     f"{median:.1f} ({low:.1f}–{high:.1f}) | {rss / 1e6:.0f} MB |")
    path = ROOT / "docs" / "measurements" / f"{datetime.date.today()}-held-out-engine.md"
    path.write_text("\n".join(lines) + "\n")
    print("wrote", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
