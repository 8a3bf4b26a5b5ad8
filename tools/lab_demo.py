#!/usr/bin/env python3
"""The lab on nothing but the clone: phantoms are made, an experiment is registered, swept, judged and reported.

Every step is a command a user could type; they are printed as they run. --small: thinner phantoms, for the tests.
Exits with 1 unless at least one setting is preserved and one is not. Only Python's standard library is used.
"""
import argparse
import json
import pathlib
import shutil
import sys
import time

from steps import run

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPERIMENT = ROOT / "examples" / "lab" / "kidney_phantom.toml"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isoline", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--seed", type=int, default=301)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    out = args.out.resolve()
    for name in ("imagesTs", "labelsTs", "run", "report"):  # a demo starts afresh
        shutil.rmtree(out / name, ignore_errors=True)
    (out / "experiment.registered.json").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    shape = "64,256,256" if args.small else "96,256,256"
    run(args.isoline, "phantom", "--seed", args.seed, "--count", args.cases, "--shape", shape, "--spacing", "2.5,1.3,1.3",
        "-o", out, "-q")
    experiment = out / "experiment.toml"
    text = EXPERIMENT.read_text().replace('"../../models/kidney_phantom"', json.dumps(str(ROOT / "models" / "kidney_phantom")))
    native = next(d for d in run(args.isoline, "devices", "--json", capture=True)["backends"] if d["name"] == "native")
    if "bf16" not in native["device"]:
        print("this CPU has no bf16 in hardware: setting 01 is listed as not run")
        text = text.replace('precision = "bf16"', 'not_run = "this CPU has no bf16 in hardware"')
    experiment.write_text(text)
    run(args.isoline, "register", experiment)
    run(args.isoline, "sweep", experiment, "-o", out / "run")
    run(args.isoline, "recommend", out / "run")
    run(args.isoline, "report", out / "run", "-o", out / "report")
    summary = json.loads((out / "run" / "summary.json").read_text())
    verdicts = {s["name"]: s["verdict"] for s in summary["settings"]}
    print(f"verdicts: {verdicts}; {time.monotonic() - start:.0f} s in all")
    print(f"wrote {args.out / 'report' / 'report.html'}")
    if "preserved" not in verdicts.values() or "not preserved" not in verdicts.values():
        sys.exit("lab-demo: the data bear out no preserved or no not-preserved verdict")


if __name__ == "__main__":
    main()
