#!/usr/bin/env python3
"""The server over the bundled image network beside the same network without a server, on this machine, in one run.

    python3 bench/serve_embed.py --build build [--clients build/serve_clients] [--repeat 5] [--seconds 2]

Clock of both: samples (96x96 pictures as float32 tensors, 108 KiB each) a second. Bare: bench/tensor_bench, batches from memory back to back, at
the best of several batch sizes. Served: perf_analyzer 2.41 sends single samples and whole batches, REST with binary tensors and gRPC, at
several concurrencies; the best counts. The turns alternate within each repeat. The client takes part of the same cores, so CPU seconds of the server and of the
client stand beside the rates. Writes docs/measurements/<date>-serve-embed.md and .json. Needs `ninja isoline tensor_bench`.
"""
import argparse
import csv
import datetime
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/serve"))
import clients  # noqa: E402
from server import Server  # noqa: E402

MODEL = ROOT / "models/photo_copies"
CONFIG = """max_batch_size: %d
dynamic_batching { }
instance_group { count: %d }
parameters { key: "threads" value { string_value: "%d" } }
"""


def bare(program, batch, threads, instances, seconds, repeats=1):
    done = subprocess.run([program, MODEL, str(batch), str(seconds), str(threads), str(instances), str(repeats)], capture_output=True, text=True,
                          check=True)
    return json.loads(done.stdout)


def cpu_s(pid):
    """CPU seconds of the threads that compute, and of the rest of the server."""
    compute = rest = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        seconds = int((thread / "schedstat").read_text().split()[0]) * 1e-9
        if thread.name == str(pid) or (thread / "comm").read_text().strip() in ("net", "task", "batch"):
            rest += seconds
        else:
            compute += seconds
    return compute, rest


def load(server, analyzer, protocol, size, concurrency, seconds):
    """One run of perf_analyzer with requests of `size` samples: rate, latencies, CPU time of both sides and what batches the server made."""
    program, env = analyzer
    port = server.http if protocol == "http" else server.grpc

    def counts():
        s = server.json("/v2/models/photo_copies/stats")[1]["model_stats"][0]
        return s["inference_count"], s["execution_count"]
    with tempfile.TemporaryDirectory() as out:
        table = os.path.join(out, "t.csv")
        command = [program, "-m", "photo_copies", "-u", f"127.0.0.1:{port}", "-i", protocol, "-b", str(size), "--concurrency-range", str(concurrency),
                   "-p", str(int(seconds * 1000 / 3)), "-s", "50", "-r", "10", "--input-data", "random", "-f", table]
        before, cpu, own = counts(), cpu_s(server.process.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        after, cpu_end, own_end = counts(), cpu_s(server.process.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
        if not os.path.exists(table):
            raise RuntimeError(done.stdout + done.stderr)
        with open(table) as f:
            row = next(csv.DictReader(f))
    samples = after[0] - before[0]
    client = own_end.ru_utime + own_end.ru_stime - own.ru_utime - own.ru_stime
    return {"size": size, "concurrency": concurrency, "samples_per_s": float(row["Inferences/Second"]), "p50_us": float(row["p50 latency"]),
            "p99_us": float(row["p99 latency"]), "mean_batch": samples / max(1, after[1] - before[1]),
            "compute_cpu_us": (cpu_end[0] - cpu[0]) / samples * 1e6,
            "rest_cpu_us": (cpu_end[1] - cpu[1]) / samples * 1e6, "client_cpu_us": client / samples * 1e6}


def median_of(runs, key):
    return statistics.median(r[key] for r in runs)


def measure(options, analyzer, programs, threads, instances):
    isoline, tensor_bench = programs
    batches = {b: bare(tensor_bench, b, threads, instances, options.seconds, 2) for b in (1, 4, 8, 16, 32)}
    best = max(batches, key=lambda b: max(batches[b]["samples_per_s"]))
    result = {"threads": threads, "instances": instances, "best_batch": best, "bare_by_batch": {b: max(r["samples_per_s"]) for b, r in batches.items()},
              "bare": [], "runs": []}
    with tempfile.TemporaryDirectory() as root:
        shutil.copytree(MODEL, pathlib.Path(root) / "photo_copies")
        (pathlib.Path(root) / "photo_copies/config.pbtxt").write_text(CONFIG % (best, instances, threads))
        server = Server(isoline, root)
        try:
            found = {}
            result["tries"] = []
            for size in sorted({1, best}):
                for protocol in ("http", "grpc"):
                    tries = [load(server, analyzer, protocol, size, c, options.seconds) for c in (options.concurrency if size == 1 else (2, 3, 4, 6))]
                    found[size, protocol] = max(tries, key=lambda r: r["samples_per_s"])["concurrency"]
                    result["tries"].append({"protocol": protocol, "tries": tries})
            result["runs"] = [{"size": size, "protocol": protocol, "runs": []} for size, protocol in found]
            for _ in range(options.repeat):
                b = bare(tensor_bench, best, threads, instances, options.seconds)
                result["bare"].append({"samples_per_s": b["samples_per_s"][0], "cpu_us": b["cpu_us_per_sample"][0]})
                for r in result["runs"]:
                    c = found[r["size"], r["protocol"]]
                    r["runs"].append(load(server, analyzer, r["protocol"], r["size"], c, options.seconds))
        finally:
            server.stop()
    result["description"] = batches[best]["description"]
    return result


def spread(runs, key="samples_per_s", digits=0):
    values = [r[key] for r in runs]
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def write(results, options, load_before, load_after, path):
    cpu = next(line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    text = f"""# Serving an image network: the server beside the bare network, {options.date}

Device: {cpu}, {os.cpu_count()} cores, shared: load average {load_before:.1f} at the start, {load_after:.1f} at the end. Commit `{commit}`. {results[0]['description'].split(' CPU')[0]}.
Command: `python3 bench/serve_embed.py --repeat {options.repeat} --seconds {options.seconds:g}`. Network: `models/photo_copies`; a sample is a float32
tensor of 108 KiB. Bare: `bench/tensor_bench`, batches from memory back to back at the best batch size. Served: perf_analyzer 2.41, at the
best of several concurrencies; `max_batch_size` as bare, `dynamic_batching {{ }}`. Threads are those that compute; sockets and the client take what
is left of the same cores. Medians (smallest–largest) of {options.repeat} alternating turns of {options.seconds:g} s.

| threads × instances | | samples/s | of bare | concurrency | mean batch | p50, ms | p99, ms | CPU, µs a sample: computing | rest of the server | client |
|---|---|---|---|---|---|---|---|---|---|---|
"""
    for r in results:
        name = f"{r['threads']} × {r['instances']}"
        text += f"| {name} | bare, batches of {r['best_batch']} | {spread(r['bare'])} | | | | | | {spread(r['bare'], 'cpu_us')} | | |\n"
        for served in r["runs"]:
            runs = served["runs"]
            label = ("REST, binary" if served["protocol"] == "http" else "gRPC") + f", {served['size']} a request"
            ratio = median_of(runs, "samples_per_s") / median_of(r["bare"], "samples_per_s")
            text += (f"| {name} | {label} | {spread(runs)} | **{100 * ratio:.0f} %** | {runs[0]['concurrency']} | {median_of(runs, 'mean_batch'):.1f} | "
                     f"{median_of(runs, 'p50_us') / 1000:.1f} | {median_of(runs, 'p99_us') / 1000:.1f} | {spread(runs, 'compute_cpu_us')} | "
                     f"{spread(runs, 'rest_cpu_us')} | {spread(runs, 'client_cpu_us')} |\n")
    text += """
The client's CPU time includes the analyzer's start and end. Where all cores compute, the time that sockets and client take of them is missing from
the network.
"""
    path.write_text(text)
    path.with_suffix(".json").write_text(json.dumps({"options": {k: str(v) for k, v in vars(options).items()}, "results": results}, indent=1) + "\n")
    print(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--clients", type=pathlib.Path, help="folder for the clients' wheels; default: BUILD/serve_clients")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--settings", nargs="+", default=["1x1", "2x2"], help="threads x instances")
    parser.add_argument("--out", type=pathlib.Path, help="the .md to write; default: docs/measurements/<date>-serve-embed.md")
    options = parser.parse_args()
    options.date = datetime.date.today().isoformat()
    options.clients = (options.clients or options.build / "serve_clients").resolve()
    clients.install(options.clients)
    analyzer = clients.perf_analyzer(options.clients)
    programs = (options.build / "apps/isoline/isoline", options.build / "src/isoline/model_loader/tensor_bench")
    load_before = os.getloadavg()[0]
    results = [measure(options, analyzer, programs, *map(int, s.split("x"))) for s in options.settings]
    path = options.out or ROOT / f"docs/measurements/{options.date}-serve-embed.md"
    write(results, options, load_before, os.getloadavg()[0], path)


if __name__ == "__main__":
    main()
