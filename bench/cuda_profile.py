#!/usr/bin/env python3
"""Where the time of a 266x512x512 scan on a GPU goes, by stage and by layer of the full 32...320 network.

    cuda_profile.py --isoline ISOLINE --model FOLDER -o OUT [--commit C]

FOLDER: a full-size results folder; from bench/official_model.py, say (random weights: the network's speed does not depend on
them). Runs `isoline segment --profile` on two scans in one process for each setting; OUT/cuda-profile.md holds the printed tables
as they are, cuda-profile.json the same figures without the single periods, trace.json the first setting's Chrome trace.
Standard library only.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

SETTINGS = (("fp16, no TTA, .75", ["--precision", "fp16", "--step", "0.75", "--tta", "none"]),
            ("fp16, TTA, .5", ["--precision", "fp16", "--step", "0.5", "--tta", "all"]),
            ("bf16, no TTA, .75", ["--precision", "bf16", "--step", "0.75", "--tta", "none"]),
            ("fp32, no TTA, .75", ["--precision", "fp32", "--step", "0.75", "--tta", "none"]))


def output_of(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def gpu():
    return output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").strip().splitlines()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isoline", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("-o", "--out", type=pathlib.Path, required=True)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--about", default="random weights", help="what the model is, for the report")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device = gpu()
    devices = json.loads(output_of(args.isoline, "devices", "--json"))
    rows, text = [], []
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        output_of(args.isoline, "phantom", "--seed", "1", "--count", "2", "--shape", "266,512,512", "--spacing", "1.0,0.824,0.824", "-o", work, "-q")
        for i, (name, options) in enumerate(SETTINGS):
            trace = args.out / "trace.json" if i == 0 else work / "trace.json"
            command = [args.isoline, "segment", "-m", args.model, "-i", work / "imagesTs", "-o", work / "out", "--backend", "cuda", *options]
            table = output_of(*command, "--profile", trace)
            report = json.loads(output_of(*command, "--json", "--profile", work / "again.json"))
            profile = report["profile"]
            profile.pop("cases")  # every period of every scan
            rows.append({"setting": name, "ran_on": report["ran_on"], "profile": profile})
            text += ["", f"## {name}", "", "```", table.strip("\n"), "```"]
            print(name, table, flush=True)
    (args.out / "cuda-profile.json").write_text(json.dumps({"command": "bench/cuda_profile.py", "commit": args.commit, "model": args.about, "gpu_and_driver": device,
                                                            "cores": devices["cores"], "rows": rows}, indent=1) + "\n")
    head = ["# Where the time of a scan on a GPU goes", "",
            f"Commit `{args.commit}`; {device.replace(', ', ', driver ')}; {devices['cores']} CPU cores. Two 266×512×512 phantoms at 1.0×.824×.824 mm in one process "
            f"(the first also prepares the network), full 32…320 network, patch 128³, {args.about}. Written by `bench/cuda_profile.py`; what the columns mean: "
            "[guide](../guides/gpu.md#where-the-time-goes). The JSON beside it is a second run of each setting.", "",
            "    isoline segment -m MODEL -i SCANS -o OUT --backend cuda --precision … --step … --tta … --profile trace.json"]
    (args.out / "cuda-profile.md").write_text("\n".join(head + text) + "\n")


if __name__ == "__main__":
    main()
