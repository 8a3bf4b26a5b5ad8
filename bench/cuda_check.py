#!/usr/bin/env python3
"""Checks and times the cuda backend on a machine with an NVIDIA GPU, from binaries built elsewhere.

    cuda_check.py --prepare FOLDER --build BUILD     copies what the GPU machine needs into FOLDER (shared libraries too)
    cuda_check.py --bin FOLDER --out FOLDER          runs everything there; needs python3 with numpy; writes cuda-check.json
    cuda_check.py --report cuda-check.json OUT.md    the Markdown beside the JSON

Nothing is compiled on the GPU machine. Exit code 1 if a check failed; times are reported, not judged.
"""
import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

MODEL = Path(__file__).resolve().parent.parent / "models" / "kidney_phantom"
PROGRAMS = ["apps/isoline/isoline", "src/isoline/backends/cuda/cuda_bench", "src/isoline/backends/cuda/cuda_kernel_bench",
            "src/isoline/backends/cuda/backend_cuda_test",
            "src/isoline/backends/registry/backends_test", "tests/device/scan_device_test"]


def prepare(build, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for p in PROGRAMS:
        shutil.copy2(build / p, folder)
        subprocess.run(["strip", str(folder / Path(p).name)], check=True)
    listed = subprocess.run(["ldd", str(folder / "isoline")], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        if "=>" in line and any(n in line for n in ("libpng", "libz", "libcrypto", "libssl", "libnghttp2", "libjpeg", "libwebp", "libsharpyuv")):
            shutil.copy2(os.path.realpath(line.split("=>")[1].split()[0]), folder / line.split()[0])
    print(subprocess.run(["du", "-sh", str(folder)], capture_output=True, text=True, check=True).stdout.split()[0], "in", folder)


class Check:
    def __init__(self, programs, out):
        self.bin, self.out, self.failed = programs, out, []
        self.env = dict(os.environ, LD_LIBRARY_PATH=f"{programs}:{os.environ.get('LD_LIBRARY_PATH', '')}",
                        ISOLINE_SOURCE_DIR=str(MODEL.parent.parent))
        self.results = {"what": "cuda backend: correctness and times", "command": "bench/cuda_check.py"}

    def run(self, *command, timeout=120, quiet=False):
        start = time.time()
        try:
            r = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout, env=self.env)
        except subprocess.TimeoutExpired as e:
            print("TIMEOUT", *command, (e.stdout or b"")[-2000:])
            return None, 0.0
        if r.returncode and not quiet:
            print("FAILED", *command, "->", r.returncode, "\n", (r.stdout + r.stderr)[-3500:], flush=True)
        return r, time.time() - start

    def judge(self, name, ok, **more):
        self.results.setdefault("checks", []).append({"name": name, "ok": bool(ok), **more})
        print(("ok    " if ok else "FAIL  ") + name, more or "", flush=True)
        if not ok:
            self.failed.append(name)

    def tests(self):
        for program, pattern in (("backend_cuda_test", "*"), ("backends_test", "*"), ("scan_device_test", "*")):
            r, s = self.run(self.bin / program, f"--gtest_filter={pattern}")
            last = [line for line in (r.stdout if r else "").splitlines() if "tests ran" in line or "PASSED" in line or "SKIPPED" in line]
            self.judge(program, r and r.returncode == 0, seconds=round(s, 2), said=last[:2])
        r, s = self.run(self.bin / "cuda_kernel_bench", "--small", "--half")
        last = [line for line in (r.stdout if r else "").splitlines() if "checked" in line or "passed" in line]
        self.judge("cuda_kernel_bench --small --half: every kernel and tiling against a naive convolution", r and r.returncode == 0 and last,
                   seconds=round(s, 2), said=last)

    def sanitize(self, tool, kind, program, options, passes=lambda r: True):
        """Judges one program under one of compute-sanitizer's tools."""
        r, s = self.run(tool, "--tool", kind, "--error-exitcode", "9", self.bin / program, options, timeout=150)
        said = [line.strip("= ") for line in (r.stdout if r else "").splitlines() if "SUMMARY" in line]
        ran = r and passes(r)
        if not ran:
            print((r.stdout + r.stderr)[-2500:] if r else "", flush=True)
        self.judge(f"compute-sanitizer {kind} {program} {options.removeprefix('--gtest_filter=')}", ran and r.returncode == 0 and said,
                   seconds=round(s, 1), said=said)

    def sanitizer(self):
        tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        if not Path(tool).exists():
            self.results["sanitizer"] = "compute-sanitizer not found: not run"
            return
        for kind in ("memcheck", "racecheck"):
            for program, pattern, count in (("backend_cuda_test", "CudaDevice.OddGraphs:CudaDevice.SmallUNet:CudaDevice.WideUNet", 3),
                                            ("backend_cuda_test", "CudaDevice.TinyScan", 1),
                                            ("scan_device_test", "ScanDevice.StopsWhenAskedTo", 1)):
                if kind == "racecheck" and program == "scan_device_test":
                    continue  # too much for racecheck (its process ends after two minutes without a finding or a reason)
                self.sanitize(tool, kind, program, f"--gtest_filter={pattern}",
                              lambda r: f"[  PASSED  ] {count} test" in r.stdout and "SKIPPED" not in r.stdout)
            self.sanitize(tool, kind, "cuda_kernel_bench", "--planes")

    def labels(self, path):
        import numpy
        raw = gzip.open(path).read()
        code, offset = int.from_bytes(raw[70:72], "little"), int(numpy.frombuffer(raw[108:112], "<f4")[0])
        return numpy.frombuffer(raw, {2: "<u1", 4: "<i2", 512: "<u2", 8: "<i4"}[code], offset=offset)

    def phantoms(self, count=2):
        import numpy
        work = self.out / "work"
        isoline = self.bin / "isoline"
        r, _ = self.run(isoline, "phantom", "--seed", 101, "--count", count, "--shape", "96,256,256", "--spacing", "2.5,1.3,1.3",
                        "-o", work / "ph", "-q")
        if not r or r.returncode:
            return self.judge("phantom", False)
        settings = [("native", "fp32", ""), ("cuda", "fp32", ""), ("cuda", "tf32", ""), ("cuda", "fp16", ""), ("cuda", "fp16", " again"), ("cuda", "bf16", "")]
        found, rows = {}, []
        for backend, precision, again in settings:
            name = f"{backend} {precision}{again}"
            to = work / name.replace(" ", "-")
            r, _ = self.run(isoline, "segment", "-m", MODEL, "-i", work / "ph" / "imagesTs", "-o", to, "--backend", backend,
                            "--precision", precision, "--json", timeout=300)
            if not r or r.returncode:
                self.judge(f"segment {name}", False)
                continue
            said = json.loads(r.stdout)
            found[name] = [self.labels(c["output"]) for c in said["cases"]]
            rows.append({"setting": name, "ran_on": said["ran_on"], "load_s": round(said["load_s"], 3), "cases": len(said["cases"]),
                         "total_s_median": statistics.median(c["total_s"] for c in said["cases"]),
                         "network_s_median": statistics.median(c["stages_s"]["network"] for c in said["cases"]),
                         "forwards": said["cases"][0]["forwards"],
                         "ms_per_forward": 1e3 * statistics.median(c["s_per_forward"] for c in said["cases"])})
        self.results["phantoms"] = rows
        base = found.get("native fp32")
        for name, bound in (("cuda fp32", 0.99999), ("cuda tf32", 0.9999), ("cuda fp16", 0.9999), ("cuda bf16", 0.999)):
            if base is None or name not in found:
                continue
            same = float(min((a == b).mean() for a, b in zip(base, found[name])))
            dice = {}
            for label in sorted(set(numpy.unique(base[0])) - {0}):
                worst = min(2 * ((a == label) & (b == label)).sum() / max(1, (a == label).sum() + (b == label).sum())
                            for a, b in zip(base, found[name]))
                dice[str(label)] = float(worst)
            # Against the phantom's own labels, region by region is the demo's matter; here: the change of Dice per label.
            truth = [self.labels(p) for p in sorted((work / "ph" / "labelsTs").glob("*.nii.gz"))]
            change = {}
            for label in dice:
                d = []
                for t, a, b in zip(truth, base, found[name]):
                    k = int(label)
                    score = lambda p: 2 * ((t == k) & (p == k)).sum() / max(1, (t == k).sum() + (p == k).sum())
                    d.append(abs(float(score(a)) - float(score(b))))
                change[label] = max(d)
            self.judge(f"{name} against native fp32: voxel agreement at least {bound}", same >= bound, worst_agreement=same,
                       worst_dice_between=dice, largest_dice_change_to_truth=change)
        if "cuda fp16" in found and "cuda fp16 again" in found:
            self.judge("cuda fp16 twice: identical labels",
                       all((a == b).all() for a, b in zip(found["cuda fp16"], found["cuda fp16 again"])))

    def benchmarks(self, cases):
        rows = []
        for precision, runs, patch, batch, mode in cases:
            r, _ = self.run(self.bin / "cuda_bench", precision, runs, patch, batch, mode, timeout=100)
            if not r or r.returncode:
                self.judge(f"bench {precision} batch {batch} {mode}", False)
                continue
            lines = r.stdout.strip().splitlines()
            row = json.loads(lines[-1])
            row["steps"] = [{"ms": float(x.split()[0]), "tflops": float(x.split()[2]), "name": x.split("TFLOP/s", 1)[1].strip()} for x in lines[:-1]]
            rows.append(row)
            print(lines[-1], flush=True)
            if batch == 1 and mode != "naive" and precision != "bf16":
                print("\n".join(sorted(lines[:-1], reverse=True)[:14 if mode == "fold" else 6]), flush=True)
        self.results["full_network"] = rows

    def device(self):
        r, _ = self.run("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader", quiet=True)
        self.results["gpu"] = r.stdout.strip() if r else ""
        r, _ = self.run(self.bin / "isoline", "devices", "--json")
        self.results["devices"] = json.loads(r.stdout) if r and not r.returncode else None
        print(self.results["gpu"], self.results["devices"], flush=True)


def report(source, target):
    d = json.loads(Path(source).read_text())
    out = ["# Backend cuda: checks and times", "", "Written by `bench/cuda_check.py --report`; do not edit. " f"Data: `{Path(source).name}`.", "",
           f"GPU: {d['gpu']}. Date: {d['date']}. Commit: {d.get('commit', 'unknown')}.", "", "## Checks", "", "| check | result | details |", "|---|---|---|"]
    for c in d.get("checks", []):
        more = "; ".join(f"{k.replace('_', ' ')}: {v}" for k, v in c.items() if k not in ("name", "ok"))
        out.append(f"| {c['name']} | {'ok' if c['ok'] else '**FAILED**'} | {more} |")
    if isinstance(d.get("sanitizer"), str):
        out.append(f"| compute-sanitizer | not run | {d['sanitizer']} |")
    out += ["", "## Phantoms, file to file (bundled model, 96x256x256, step .5, all mirrors)", "",
            "Backend cuda keeps the whole scan on the GPU; `native` runs on the CPU.", "",
            "| setting | ran on | forwards | ms per forward | network s | total s |", "|---|---|---|---|---|---|"]
    for r in d.get("phantoms", []):
        out.append(f"| {r['setting']} | {r['ran_on']} | {r['forwards']} | {r['ms_per_forward']:.2f} | {r['network_s_median']:.2f} | {r['total_s_median']:.2f} |")
    out += ["", "`ms per forward` is network time over forwards: it includes cutting and adding up windows.", "",
            "## Full network, 32...320 features, random weights", "",
            "graph: on the device, without copies from and to the host; host to host: one `Session::run`.", "",
            "| precision | patch | batch | how | graph ms | ms per patch | host to host ms | TFLOP/s | device memory MB |", "|---|---|---|---|---|---|---|---|---|"]
    for r in d.get("full_network", []):
        memory = sum(r[k] for k in ("activation_bytes", "weight_bytes", "scratch_bytes", "transfer_bytes")) / 1e6
        out.append(f"| {r['precision']} | {r['patch']}^3 | {r['batch']} | {r['mode']} | {r['graph_ms']:.3f} | {r['graph_ms'] / r['batch']:.3f} | "
                   f"{r['host_to_host_ms']:.2f} | {r['tflops']:.0f} | {memory:.0f} |")
    for r in d.get("full_network", []):
        if r["precision"] == "fp16" and r["batch"] == 1 and r["mode"] == "fold":
            out += ["", f"## Steps, fp16, one patch of {r['patch']}^3", "", "Each step alone between two events, so launch gaps count; "
                    f"their sum is {r['steps_sum_ms']:.3f} ms, the graph takes {r['graph_ms']:.3f} ms.", "", "| step | ms | TFLOP/s |", "|---|---|---|"]
            out += [f"| {s['name']} | {s['ms']:.4f} | {s['tflops']:.0f} |" for s in r["steps"]]
    Path(target).write_text("\n".join(out) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--prepare", type=Path)
    p.add_argument("--build", type=Path)
    p.add_argument("--bin", type=Path)
    p.add_argument("--out", type=Path, default=Path("."))
    p.add_argument("--commit", default="unknown")
    p.add_argument("--only", default="device,tests,phantoms,bench,sanitizer", help="parts to run, joined by commas")
    p.add_argument("--report", nargs=2)
    a = p.parse_args()
    if a.prepare:
        return prepare(a.build, a.prepare)
    if a.report:
        return report(*a.report)
    a.out.mkdir(parents=True, exist_ok=True)
    check = Check(a.bin.resolve(), a.out.resolve())
    check.results.update(date=time.strftime("%Y-%m-%d"), commit=a.commit)
    parts = {"device": check.device, "tests": check.tests, "phantoms": check.phantoms,
             "bench": lambda: check.benchmarks([("fp16", 30, 128, 1, "fold"), ("fp16", 30, 128, 1, "pass"), ("fp16", 20, 128, 2, "fold"),
                                                ("fp16", 10, 128, 4, "fold"), ("bf16", 30, 128, 1, "fold"), ("tf32", 10, 128, 1, "fold"),
                                                ("fp32", 5, 128, 1, "fold")]),
             "sanitizer": check.sanitizer}
    for name in a.only.split(","):
        start = time.time()
        parts[name]()
        print(f"-- {name}: {time.time() - start:.1f} s", flush=True)
        (a.out / "cuda-check.json").write_text(json.dumps(check.results, indent=1) + "\n")
    shutil.rmtree(check.out / "work", ignore_errors=True)
    print("failed:", check.failed or "nothing")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
