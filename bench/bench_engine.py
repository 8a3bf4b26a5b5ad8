#!/usr/bin/env python3
"""Isoline beside official nnU-Net on this machine's CPU, in one run; writes docs/measurements/DATE-bench-cpu.{json,md}.

    bench_engine.py --isoline BINARY [--python PYTHON] [--work out/bench] [--output docs/measurements] [--quick]

--python: an interpreter with tools/parity/requirements.txt installed (default: the one running this).
Two phantom scans and the full 32...320 network at 0.78125 mm with random weights. Boundaries of the figures:
  preprocess  scan array in memory -> preprocessed array                      (transpose, crop, normalise, resample)
  export      logits array in memory -> label array in the scan's geometry    (resample, decide, undo crop and transpose)
  window      one 128^3 window through the network and into the accumulators, mirroring off; sampled, not a whole scan
  peak RSS    ours: a whole `isoline segment`, file to file (step 1, no mirroring); official: one process that reads, preprocesses,
              exports and writes, network left out, which flatters it
Both use the same number of threads. Runs of the two programs alternate stage by stage; medians and the full range are given.
"""
import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
SCANS = [
    {"name": "266x512x512", "shape": (266, 512, 512), "spacing": (1.0, 0.824, 0.824), "seed": 1},
    {"name": "97x512x512", "shape": (97, 512, 512), "spacing": (2.0, 0.775, 0.775), "seed": 2},
]
QUICK = [{"name": "64x128x128", "shape": (64, 128, 128), "spacing": (1.0, 0.824, 0.824), "seed": 1}]
TARGETS = {"stages_ratio": 10.0, "fp32_ratio": 3.0, "bf16_ratio": 6.0, "peak_rss_gb": 2.5}


class Runner:
    def __init__(self, threads):
        self.threads, self.commands = threads, []

    def __call__(self, args, want_json=True, allow_failure=False):
        """Runs a command; its last standard-output line as JSON, plus the child's peak RSS and wall time."""
        args = [str(a) for a in args]
        self.commands.append(" ".join(args))
        print("$", " ".join(args), file=sys.stderr, flush=True)
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        start = time.perf_counter()
        child = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        out, err = child.communicate()
        wall = time.perf_counter() - start
        if child.returncode != 0:
            if allow_failure:
                return {"error": (err.strip().splitlines() or [f"exit {child.returncode}"])[-1][:300]}
            sys.exit(f"failed ({child.returncode}): {' '.join(args)}\n{err[-3000:]}")
        result = json.loads(out[out.index("{"):]) if want_json else {}
        result["command_wall_s"] = wall
        return result


def peak_rss_of(args, threads):
    """Runs a command alone and returns (wall seconds, peak resident bytes of it and its children)."""
    code = ("import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024); sys.exit(done.returncode)")
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, args))}")
    return time.perf_counter() - start, int(done.stdout.split()[-1])


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def fmt(s):
    return f"{s['median']:.2f} ({s['min']:.2f}–{s['max']:.2f}, n={s['n']})"


def device():
    cpu = "unknown"
    flags = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name") and cpu == "unknown":
            cpu = line.split(":", 1)[1].strip()
        if line.startswith("flags") and not flags:
            flags = line.split(":", 1)[1]
    isa = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags.split()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu, "cores": os.cpu_count(), "isa": isa, "memory_gb": round(memory / 1e9, 1), "kernel": platform.release(),
            "load_before": os.getloadavg()[0]}


def commit():
    git = lambda *a: subprocess.run(["git", "-C", str(REPOSITORY), *a], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def find_scan(folder):
    scans = sorted(p for p in folder.rglob("*.nii.gz") if p.name.endswith("_0000.nii.gz")) or \
        sorted(p for p in folder.rglob("*.nii.gz") if "label" not in p.name and "seg" not in p.name and "label" not in str(p.parent.name))
    if not scans:
        sys.exit(f"isoline phantom wrote no scan under {folder}")
    return scans[0]


def bench_stages(run, args, scan, model, folder):
    data = folder / scan["name"]
    data.mkdir(parents=True, exist_ok=True)
    triple = lambda v: ",".join(map(str, v))
    run([args.isoline, "phantom", "--seed", scan["seed"], "--shape", triple(scan["shape"]), "--spacing", triple(scan["spacing"]), "-o", data], want_json=False)
    image = find_scan(data)
    official = [args.python, HERE / "official_stages.py"]
    logits = folder / f"{scan['name']}_logits.npy"
    run([*official, "logits", "--model", model, "--image", image, "-o", logits])
    theirs, ours = {}, {}
    keys = ("preprocess_s", "export_s", "read_s", "write_s")
    for repeat in range(args.repeat):  # alternate, so that a slow spell of the machine hits both
        for store, command in (
                (theirs, [*official, "stages", "--model", model, "--image", image, "--logits", logits, "--repeat", 1, "--threads", args.threads]),
                (ours, [args.isoline, "debug", "bench-stages", "-m", model, "-i", image, "--logits", logits, "--repeat", 3, "--threads", args.threads, "--json"])):
            result = run(command)
            for key in keys:
                store.setdefault(key, []).extend(result[key])
            store["peak_rss_bytes"] = max(store.get("peak_rss_bytes", 0), result["peak_rss_bytes"])
    row = {"scan": scan, "image": str(image), "official": {}, "isoline": {}}
    for name, store in (("official", theirs), ("isoline", ours)):
        for key in keys:
            row[name][key] = summary(store[key])
        row[name]["stages_peak_rss_bytes"] = store["peak_rss_bytes"]
        row[name]["preprocess_plus_export_s"] = row[name]["preprocess_s"]["median"] + row[name]["export_s"]["median"]
    row["ratio"] = {key: row["official"][key]["median"] / row["isoline"][key]["median"] for key in keys}
    row["ratio"]["preprocess_plus_export"] = row["official"]["preprocess_plus_export_s"] / row["isoline"]["preprocess_plus_export_s"]
    return row, image


def bench_network(run, args, model):
    windows = args.windows
    out = {"official": None, "isoline": {}}
    theirs, ours = [], {"fp32": [], "bf16": []}
    errors = {}
    for _ in range(2):
        theirs += run([args.python, HERE / "official_stages.py", "network", "--model", model, "--windows", windows, "--threads", args.threads])["window_s"]
        for precision in ours:
            result = run([args.isoline, "debug", "bench-network", "-m", model, "--backend", args.backend, "--precision", precision, "--windows", windows,
                          "--threads", args.threads, "--json"], allow_failure=True)
            if "error" in result:
                errors[precision] = result["error"]
            else:
                ours[precision] += result["window_s"]
    out["official"] = summary(theirs)
    for precision, values in ours.items():
        if values:
            out["isoline"][precision] = summary(values)
            out["isoline"][precision]["ratio"] = out["official"]["median"] / out["isoline"][precision]["median"]
        else:
            out["isoline"][precision] = {"error": errors[precision]}
    return out


def bench_whole(args, model, image, name):
    """The whole program, file to file, alone in its process: wall time and peak resident memory per precision."""
    rows = []
    for precision in ("fp32", "bf16"):
        target = args.work / "whole"
        wall, rss = peak_rss_of([args.isoline, "segment", "-m", model, "-i", image, "-o", target / "labels.nii.gz", "--backend", args.backend, "--precision", precision,
                                 "--step", 1.0, "--tta", "none", "--threads", args.threads, "--quiet"], args.threads)
        rows.append({"scan": name, "precision": precision, "wall_s": wall, "peak_rss_bytes": rss})
    return rows


def whole_markdown(r):
    yes = lambda ok: "met" if ok else "**not met**"
    lines = ["## Memory", "",
             "Boundary: isoline, the whole program file to file (step 1, no mirroring, 75 windows for the first scan); official, one process that reads, preprocesses, "
             "exports and writes without the network.", "", "| scan | precision | peak RSS | wall |", "|---|---|---|---|"]
    for w in r["whole"]:
        lines.append(f"| {w['scan']} | isoline, {r['backend']} {w['precision']} | {w['peak_rss_bytes'] / 1e9:.2f} GB (target ≤ {TARGETS['peak_rss_gb']} GB: "
                     f"{yes(w['peak_rss_bytes'] <= TARGETS['peak_rss_gb'] * 1e9)}) | {w['wall_s']:.0f} s |")
    if r.get("official_peak_rss_bytes"):
        lines.append(f"| {r['whole'][0]['scan']} | official, without the network | {r['official_peak_rss_bytes'] / 1e9:.2f} GB | – |")
    return lines


def markdown(r):
    yes = lambda ok: "met" if ok else "**not met**"
    d, lines = r["device"], []
    lines += [f"# Engine on a CPU, beside official nnU-Net, {r['date']}", "",
              f"Device: {d['cpu']}, {d['cores']} cores, {d['memory_gb']} GB, {', '.join(d['isa'])}, Linux {d['kernel']}; load before the run {d['load_before']:.2f}.  ",
              f"Commit: `{r['commit']['commit'][:12]}`{' with uncommitted changes' if r['commit']['dirty'] else ''}. Threads: {r['threads']} each. "
              f"Official: nnunetv2 {r['versions'].get('nnunetv2')}, torch {r['versions'].get('torch')}, scipy {r['versions'].get('scipy')}, scikit-image {r['versions'].get('scikit-image')}.  ",
              f"Command: `{r['command']}`", "",
              "Model: PlainConvUNet 32…320, patch 128³, 0.78125 mm, three regions, random weights. Medians (minimum–maximum, number of runs), seconds.", "",
              "## Preprocessing and export", "",
              "Boundary: scan array in memory → preprocessed array, and logits array in memory (the same smooth synthetic logits for both) → label array in the "
              "scan's geometry. Reading and writing the files beside it.", "",
              "| scan | stage | official | isoline | ratio |", "|---|---|---|---|---|"]
    for row in r["scans"]:
        for key, title in (("preprocess_s", "preprocess"), ("export_s", "export"), ("read_s", "read NIfTI"), ("write_s", "write NIfTI")):
            lines.append(f"| {row['scan']['name']} | {title} | {fmt(row['official'][key])} | {fmt(row['isoline'][key])} | {row['ratio'][key]:.1f}× |")
        lines.append(f"| {row['scan']['name']} | **preprocess + export** | {row['official']['preprocess_plus_export_s']:.2f} | {row['isoline']['preprocess_plus_export_s']:.2f} "
                     f"| **{row['ratio']['preprocess_plus_export']:.1f}×** |")
    first = r["scans"][0]["ratio"]["preprocess_plus_export"]
    lines += ["", f"Target for the first scan ≥ {TARGETS['stages_ratio']:.0f}×: {yes(first >= TARGETS['stages_ratio'])}.", "", "## Network", "",
              "Boundary: one 128³ window through the network and weighted into the accumulators, mirroring off; sampled windows, first (warm-up) window left out.", "",
              "| | seconds a window | ratio |", "|---|---|---|", f"| official, fp32 | {fmt(r['network']['official'])} | 1 |"]
    for precision, target in (("fp32", TARGETS["fp32_ratio"]), ("bf16", TARGETS["bf16_ratio"])):
        x = r["network"]["isoline"][precision]
        lines.append(f"| isoline, {r['backend']} {precision} | " + (f"not run: {x['error']} | – |" if "error" in x else f"{fmt(x)} | {x['ratio']:.1f}× (target ≥ {target:.0f}×: {yes(x['ratio'] >= target)}) |"))
    if r.get("whole"):
        lines += ["", *whole_markdown(r)]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isoline", type=Path, required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--work", type=Path, default=REPOSITORY / "out" / "bench")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "measurements")
    parser.add_argument("--backend", default="native")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeat", type=int, default=3, help="official runs per stage; ours runs three times as often")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a small scan, one repeat: checks the bench, not the engine")
    parser.add_argument("--whole-only", action="store_true", help="only the whole program's memory; writes a file of its own")
    parser.add_argument("--skip-whole", action="store_true", help="leave out the whole-program run behind the memory figure")
    args = parser.parse_args()
    args.isoline, args.work = args.isoline.resolve(), args.work.resolve()
    if args.quick:
        args.repeat, args.windows = 1, 1
    run = Runner(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    shown = [os.path.relpath(a, REPOSITORY) if os.path.isabs(a) else a for a in sys.argv]
    report = {"date": datetime.date.today().isoformat(), "command": "python3 " + " ".join(shown), "device": device(), "commit": commit(), "threads": args.threads,
              "backend": args.backend}
    versions = "import json; from importlib.metadata import version; print(json.dumps({p: version(p) for p in ('nnunetv2', 'torch', 'scipy', 'scikit-image', 'numpy', 'SimpleITK')}))"
    report["versions"] = run([args.python, "-c", versions])
    report["versions"].pop("command_wall_s")
    model = args.work / "model"
    if not (model / "fold_0" / "checkpoint_final.pth").exists():
        run([args.python, HERE / "official_model.py", model], want_json=False)
    if args.whole_only:
        data = args.work / SCANS[0]["name"]
        run([args.isoline, "phantom", "--seed", SCANS[0]["seed"], "--shape", ",".join(map(str, SCANS[0]["shape"])), "--spacing",
             ",".join(map(str, SCANS[0]["spacing"])), "-o", data], want_json=False)
        report["whole"] = bench_whole(args, model, find_scan(data), SCANS[0]["name"])
        d = report["device"]
        lines = [f"# Peak memory on a CPU, {report['date']}", "", f"Device: {d['cpu']}, {d['cores']} cores; load before the run {d['load_before']:.2f}. Commit: "
                 f"`{report['commit']['commit'][:12]}`. Threads: {args.threads}. Command: `{report['command']}`", "", *whole_markdown(report)]
        (args.output / f"{report['date']}-peak-rss-cpu.md").write_text("\n".join(lines) + "\n")
        print("\n".join(lines))
        return
    report["scans"], images = [], []
    for scan in QUICK if args.quick else SCANS:
        row, image = bench_stages(run, args, scan, model, args.work)
        report["scans"].append(row)
        images.append(image)
    report["network"] = bench_network(run, args, model)
    if not args.skip_whole:
        report["whole"] = bench_whole(args, model, images[0], report["scans"][0]["scan"]["name"])
        report["official_peak_rss_bytes"] = report["scans"][0]["official"]["stages_peak_rss_bytes"]
    report["commands"] = [c.replace(str(REPOSITORY) + "/", "").replace(str(args.python), "python3") for c in run.commands]
    report["targets"] = TARGETS
    for row in report["scans"]:
        row["image"] = os.path.relpath(row["image"], REPOSITORY)
    text = markdown(report)
    print(text)
    folder = args.work if args.quick else args.output
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{report['date']}-bench-cpu"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(f"written: {os.path.relpath(stem, REPOSITORY)}.md and .json", file=sys.stderr)


if __name__ == "__main__":
    main()
