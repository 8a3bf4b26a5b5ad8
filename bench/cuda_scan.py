#!/usr/bin/env python3
"""A 266x512x512 scan through the full 32...320 network on a GPU, file to file, with energy.

    cuda_scan.py --isoline ISOLINE --model FOLDER -o OUT [--commit C]

FOLDER: a full-size results folder; from bench/official_model.py, say (random weights: the network's speed does not depend on
them, but their labels are noise, which takes longer to compress and write). The clock of each row is a whole
`isoline segment` of one scan in a process of its own after one warm-up scan in the same process: first byte read to labels
on disk. Energy comes from `isoline meter run` around the process and therefore covers both scans and loading.
Standard library only.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

SETTINGS = (("fp16, TTA, .5", ["--precision", "fp16", "--step", "0.5", "--tta", "all"]),
            ("fp16, TTA, .5, batch 2", ["--precision", "fp16", "--step", "0.5", "--tta", "all", "--batch", "2"]),
            ("fp16, no TTA, .75", ["--precision", "fp16", "--step", "0.75", "--tta", "none"]),
            ("bf16, no TTA, .75", ["--precision", "bf16", "--step", "0.75", "--tta", "none"]))


def without_paths(case):
    return {k: v for k, v in case.items() if k not in ("images", "output")}


def mlperf_load(isoline, model, work, count=6):
    """NVIDIA's MLPerf 3D-UNet shape: cases of 64 windows at step .5 without TTA; from the scan in memory to its labels in memory."""
    folder = work / "mlperf"
    subprocess.run([isoline, "phantom", "--seed", "31", "--count", str(count), "--shape", "320,320,320", "--spacing", "0.78125,0.78125,0.78125",
                    "-o", folder, "-q"], check=True)
    done = subprocess.run([isoline, "segment", "-m", model, "-i", folder / "imagesTs", "-o", work / "mlperf-out", "--backend", "cuda", "--json",
                           "--precision", "fp16", "--step", "0.5", "--tta", "none"], capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr[-1500:]}
    cases = json.loads(done.stdout)["cases"][1:]  # the first compiles
    seconds = [c["stages_s"]["preprocess"] + c["stages_s"]["network"] + c["stages_s"]["export"] for c in cases]
    return {"windows": cases[0]["windows"], "cases": len(cases), "s_per_case": seconds, "cases_per_s": len(seconds) / sum(seconds)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isoline", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("-o", "--out", type=pathlib.Path, required=True)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--about", default="random weights", help="what the model is, for the report")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    devices = json.loads(subprocess.run([args.isoline, "devices", "--json"], check=True, capture_output=True, text=True).stdout)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        subprocess.run([args.isoline, "phantom", "--seed", "1", "--count", "2", "--shape", "266,512,512", "--spacing", "1.0,0.824,0.824",
                        "-o", work, "-q"], check=True)
        for name, options in SETTINGS:
            report = work / "meter.json"
            done = subprocess.run([args.isoline, "meter", "run", "-q", "-o", report, "--", args.isoline, "segment", "-m", args.model,
                                   "-i", work / "imagesTs", "-o", work / "out", "--backend", "cuda", "--json", *options],
                                  capture_output=True, text=True)
            if done.returncode:
                print(name, "FAILED", done.stderr[-1500:], flush=True)
                rows.append({"setting": name, "error": done.stderr[-1500:]})
                continue
            result, meter = json.loads(done.stdout), json.loads(report.read_text())
            gpu = next((d for d in meter["devices"] if d["kind"] == "gpu"), {})
            rows.append({"setting": name, "ran_on": result["ran_on"], "cases": [without_paths(c) for c in result["cases"]], "load_s": result["load_s"],
                         "peak_rss_bytes": result["peak_rss_bytes"], "process_wall_s": meter["wall_s"], "gpu": gpu})
            case = result["cases"][-1]
            print(name, f"{case['total_s']:.2f} s", case["stages_s"], "kJ", gpu.get("energy_gross_j"), flush=True)
        load = mlperf_load(args.isoline, args.model, work)
        print("MLPerf-shaped load", load, flush=True)
    (args.out / "cuda-scan.json").write_text(json.dumps({"command": "bench/cuda_scan.py", "commit": args.commit, "model": args.about, "devices": devices,
                                                         "rows": rows, "mlperf_shaped_load": load}, indent=1) + "\n")
    lines = ["# A 266×512×512 scan on a GPU, file to file", "",
             f"Commit `{args.commit}`; " + "; ".join(b["device"] for b in devices["backends"] if b["name"] == "cuda") + f"; {devices['cores']} CPU cores. "
             f"Full 32…320 network, patch 128³, {args.about}; phantoms 1.0×.824×.824 mm. Two scans in one process, both shown; the second is read "
             "while the first is on the GPU. "
             "Energy and VRAM: the whole process (loading and both scans), NVML counter. Written by `bench/cuda_scan.py`.", "",
             "| setting | forwards | total s (1st, 2nd scan) | read | preprocess | network | export | write | ms/forward | process s | GPU kJ, process | peak VRAM MB |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        if "error" in r:
            lines.append(f"| {r['setting']} | failed: {r['error'].strip()[-200:]} |")
            continue
        c, s = r["cases"][-1], r["cases"][-1]["stages_s"]
        energy, vram = r["gpu"].get("energy_gross_j", {}), r["gpu"].get("peak_process_vram_bytes", {})
        lines.append(f"| {r['setting']} | {c['forwards']} | {r['cases'][0]['total_s']:.2f}, {c['total_s']:.2f} | {s['read']:.2f} | {s['preprocess']:.2f} | "
                     f"{s['network']:.2f} | {s['export']:.2f} | {s['write']:.2f} | {1e3 * s['network'] / c['forwards']:.2f} | {r['process_wall_s']:.1f} | "
                     f"{energy['value'] / 1e3 if energy.get('value') else 'n/a'} | {vram['value'] / 1e6 if vram.get('value') else 'n/a'} |")
    lines += ["", "MLPerf-shaped load (64 windows a case, step .5, no TTA, fp16; scan in memory to labels in memory): "
              + (f"{load['cases_per_s']:.2f} cases/s over {load['cases']} cases of {load['windows']} windows." if "cases_per_s" in load else "failed.")]
    (args.out / "cuda-scan.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
