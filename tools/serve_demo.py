#!/usr/bin/env python3
"""The server on nothing but the clone: it serves the bundled models, answers a photo, and, where this
version can, segments a phantom scan and is measured. What it cannot is said.

Writes what came back to OUT. Every request is one a user could send; only Python's standard library is used. Ends non-zero if any
step fails or the answers are not what they should be.
"""
import argparse
import json
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

from steps import run

ROOT = pathlib.Path(__file__).resolve().parent.parent
PHOTO_MODEL, SCAN_MODEL = "photo_copies", "kidney_phantom"
JOB_TIMEOUT_S = 600


class Server:
    """`isoline serve` over `models` on free ports; stopped, and its exit code checked, at the end of the block."""
    def __init__(self, isoline, models, *options):
        command = [str(isoline), "serve", "--models", str(models), "--http-port", "0", "--grpc-port", "0", *map(str, options)]
        print("+", *command, flush=True)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the server ended with exit code {self.process.wait()}")
        self.ready = json.loads(line)
        self.url = f"http://127.0.0.1:{self.ready['http_port']}"
        print(f"  serves {', '.join(m['name'] for m in self.ready['models'])} at {self.url}")
        return self

    def __exit__(self, failed, *_):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        if code and not failed:
            sys.exit(f"the server ended with exit code {code}")

    def ask(self, path, body=None, content_type="application/octet-stream", method=None):
        request = urllib.request.Request(self.url + path, data=body, method=method, headers={"Content-Type": content_type} if body else {})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.read()
        except urllib.error.HTTPError as e:
            sys.exit(f"{method or ('POST' if body else 'GET')} {path}: {e.code} {e.read().decode(errors='replace')}")


def show_photo(server, photo):
    print(f"+ curl --data-binary @{photo} -H 'Content-Type: application/octet-stream' {server.url}/v2/models/{PHOTO_MODEL}/infer")
    server.ask(f"/v2/models/{PHOTO_MODEL}/infer", photo.read_bytes())  # the first one warms caches
    start = time.monotonic()
    output = json.loads(server.ask(f"/v2/models/{PHOTO_MODEL}/infer", photo.read_bytes()))["outputs"][0]
    took_ms = 1e3 * (time.monotonic() - start)
    values = output["data"]
    length = sum(v * v for v in values) ** 0.5
    print(f"  {took_ms:.1f} ms, {len(values)} values of length {length:.4f}: {', '.join(f'{v:.4f}' for v in values[:5])}, ...")
    if abs(length - 1) > 1e-3:
        sys.exit(f"the vector of {PHOTO_MODEL} should have length 1")
    return {"ms": took_ms, "values": len(values), "length": length}


def show_scan(server, isoline, scan, reference, out):
    print(f"+ curl --data-binary @{scan} '{server.url}/v1/segmentations?model={SCAN_MODEL}'")
    job = json.loads(server.ask(f"/v1/segmentations?model={SCAN_MODEL}", scan.read_bytes()))
    path, end, shown = f"/v1/segmentations/{job['id']}", time.monotonic() + JOB_TIMEOUT_S, -1
    while job["status"] in ("queued", "running"):
        if time.monotonic() > end:
            sys.exit(f"the job did not end in {JOB_TIMEOUT_S} s: {job}")
        time.sleep(0.2)
        job = json.loads(server.ask(path))
        tenth = int(10 * job.get("progress", 0))
        if tenth != shown:
            print(f"  {job['status']} {10 * tenth} %", flush=True)
            shown = tenth
    if job["status"] != "succeeded":
        sys.exit(f"the job ended as {job['status']}: {job.get('error')}")
    labels, picture = out / "labels.nii.gz", out / "overlay.png"
    labels.write_bytes(server.ask(path + "/labels"))
    picture.write_bytes(server.ask(path + "/overlay.png"))
    if picture.read_bytes()[:8] != b"\x89PNG\r\n\x1a\n":
        sys.exit("the job's picture is no PNG")
    dice = run(isoline, "evaluate", "-m", ROOT / "models" / SCAN_MODEL, "-p", labels, "-r", reference, "--json", capture=True)["mean"]
    print(f"  Dice {json.dumps(dice)}")
    server.ask(path, method="DELETE")
    return {"job": job, "dice": dice}


def show_bench(server, isoline, out):
    result = out / "bench.json"
    run(isoline, "bench", server.url, "--model", PHOTO_MODEL, "--concurrency", "1,2,8", "--warmup", "0.5", "--window", "0.5", "-o", result)
    return json.loads(result.read_text())


def energy(server):
    """Joules per inference of each device in the last minute, or why there are none."""
    said = server.ask("/metrics").decode().splitlines()
    return [line for line in said if line.startswith(("isoline_joules_per_inference{", "isoline_energy_source_available{"))]


def offers(isoline, *words):
    """Whether the help of a command (words[:-1]) lists words[-1]; a version without it is said to be one, and its step left out."""
    said = subprocess.run([isoline, *words[:-1], "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = any(line.split()[:1] == [words[-1]] for line in said.splitlines())
    if not found:
        print(f"  left out: this version has no `isoline {' '.join(words)}`")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--isoline", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--photo", type=pathlib.Path, default=ROOT / "docs/images/lab-report.png")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    made = run(args.isoline, "phantom", "--seed", 20264, "--shape", "64,160,160", "--spacing", "3.5,2,2", "-o", args.out, "--json", capture=True)
    case = {k: pathlib.Path(made["cases"][0][k]) for k in ("image", "labels")}
    summary = {}
    scans, bench = offers(args.isoline, "serve", "--state"), offers(args.isoline, "bench")
    with Server(args.isoline, ROOT / "models", *(("--state", args.out / "state") if scans else ())) as server:
        summary["photo"] = show_photo(server, args.photo)
        if scans:
            summary["scan"] = show_scan(server, args.isoline, case["image"], case["labels"], args.out)
        if bench:
            summary["bench"] = show_bench(server, args.isoline, args.out)
        summary["energy"] = energy(server)
        print("  energy, from /metrics:", *summary["energy"], sep="\n    ")
    (args.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"the page was at {server.url}; wrote {args.out}/summary.json")


if __name__ == "__main__":
    main()
