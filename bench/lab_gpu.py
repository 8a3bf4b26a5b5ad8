#!/usr/bin/env python3
"""The lab on a GPU: the bundled model under training-free settings of the cuda backend, with energy.

    python3 bench/lab_gpu.py --isoline ISOLINE -o OUT [--cases 8] [--repetitions 3]

Makes phantoms, registers, sweeps and reports; OUT/report.md and OUT/summary.json are the measurement. Standard library only.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPERIMENT = """[experiment]
id = "LAB-GPU"
title = "Bundled kidney model on phantoms, cuda backend"
model = {model}
[cases]
images = "imagesTs"
references = "labelsTs"
[[setting]]
name = "B0"
title = "reference"
backend = "cuda"
precision = "fp32"
[[setting]]
name = "01"
title = "half precision"
precision = "fp16"
[[setting]]
name = "03"
title = "less overlap"
step = 0.75
[[setting]]
name = "04"
title = "no test-time augmentation"
tta = "none"
[quality]
surface_tolerance_mm = 2
lesions = "tumor"
[[endpoint]]
metric = "dice"
region = "kidney"
delta = 0.0005
[[endpoint]]
metric = "dice"
region = "masses"
delta = 0.02
[[endpoint]]
metric = "dice"
region = "tumor"
delta = 0.02
[protocol]
repetitions = {repetitions}
idle_s = 5
"""


def run(*command):
    print("+", *command, flush=True)
    result = subprocess.run([str(c) for c in command])
    if result.returncode:
        sys.exit(f"lab_gpu: exit code {result.returncode}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isoline", type=pathlib.Path, required=True)
    parser.add_argument("-o", "--out", type=pathlib.Path, required=True)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    work = args.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    run(args.isoline, "phantom", "--seed", 301, "--count", args.cases, "--shape", "96,256,256", "--spacing", "2.5,1.3,1.3",
        "-o", work, "-q")
    experiment = work / "experiment.toml"
    experiment.write_text(EXPERIMENT.format(model=json.dumps(str((ROOT / "models" / "kidney_phantom").resolve())),
                                            repetitions=args.repetitions))
    run(args.isoline, "register", experiment)
    run(args.isoline, "sweep", experiment, "-o", work / "run")
    run(args.isoline, "recommend", work / "run", "--by", "energy")
    run(args.isoline, "report", work / "run", "-o", work / "report")
    shutil.copy(work / "run" / "summary.json", args.out / "summary.json")
    shutil.copy(work / "report" / "report.md", args.out / "report.md")
    shutil.copy(work / "report" / "report.html", args.out / "report.html")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
