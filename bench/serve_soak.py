#!/usr/bin/env python3
"""A long run of `isoline serve` beyond its capacity, with clients that behave badly.

    serve_soak.py --isoline ISOLINE -o docs/measurements/NAME [--minutes 10] [--commit C]

One server with the bundled nnU-Net, the bundled image network, an identity model of known capacity (5 ms a run, one instance, no batches,
a queue of 8) and one that is loaded and unloaded every 5 s. All the time: twice the identity model's capacity in requests, sent when
they are due (open loop) over connections of their own; clients that leave in the middle of a head, a body or an answer; gRPC prefaces
that go nowhere; pictures; scans as volume jobs. Then three times: jobs are accepted, the server is killed (-9) and started again.
Held to: no crash; resident memory of the last fifth within 5 % of the second fifth's (medians); rejections are 429 or 503 and come
within 50 ms; every accepted job ends as succeeded. Exit code 1 if one is missed. Client and server share the machine.
"""
import argparse
import asyncio
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUN_MS, QUEUE, REJECT_MS = 5, 8, 50
IDENTITY = """
platform: "isoline_identity"
max_batch_size: 1
input [ {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] }} ]
output [ {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] }} ]
parameters {{ key: "execute_delay_ms" value {{ string_value: "{delay}" }} }}
dynamic_batching {{ default_queue_policy {{ max_queue_size: {queue} }} }}
"""
BODY = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": list(range(16))}]}).encode()


class Server:
    def __init__(self, isoline, work):
        self.isoline, self.work, self.process = isoline, work, None
        models = work / "models"
        for name in ("kidney_phantom", "photo_copies"):
            shutil.copytree(ROOT / "models" / name, models / name)
        for name, delay in (("echo", RUN_MS), ("cycled", 0)):
            (models / name).mkdir()
            (models / name / "config.pbtxt").write_text(IDENTITY.format(delay=delay, queue=QUEUE))

    def start(self):
        self.process = subprocess.Popen([self.isoline, "serve", "--models", self.work / "models", "--http-port", "0", "--grpc-port", "0", "-q", "--state",
                                         self.work / "state", "--tta", "none", "--transfer-timeout", "3"], stdout=subprocess.PIPE, text=True)
        ready = json.loads(self.process.stdout.readline())
        self.http, self.grpc = ready["http_port"], ready["grpc_port"]

    def ask(self, method, path, body=None, headers={}):
        c = http.client.HTTPConnection("127.0.0.1", self.http, timeout=30)
        try:
            c.request(method, path, body=body, headers=headers)
            r = c.getresponse()
            return r.status, r.read()
        finally:
            c.close()

    def rss_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return 1024 * next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


class Load:
    """Requests sent when they are due, over a pool of connections; (status, seconds from the due time, seconds from sending)."""

    def __init__(self, server, rate, stop):
        self.server, self.rate, self.stop, self.answers, self.broken = server, rate, stop, [], 0
        head = f"POST /v2/models/echo/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
        self.request = head + BODY

    async def one(self, idle):
        connection = idle.pop() if idle else None
        try:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", self.server.http)
            reader, writer = connection
            start = time.perf_counter()
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            took = time.perf_counter() - start
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(length)
            self.answers.append((int(head[9:12]), took))
            if b"connection: close" in head.lower():
                writer.close()
            else:
                idle.append(connection)
        except (OSError, asyncio.IncompleteReadError):
            self.broken += 1
            if connection:
                connection[1].close()

    async def run(self):
        idle, tasks, due = [], set(), time.perf_counter()
        while not self.stop.is_set():
            due += random.expovariate(self.rate)
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.one(idle))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


def vanish(server, stop, counts):
    whole = f"POST /v2/models/echo/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    chaos = random.Random(7)
    while not stop.is_set():
        kind = chaos.choice(("head", "body", "answer", "grpc", "silent", "volume"))
        try:
            with socket.create_connection(("127.0.0.1", server.grpc if kind == "grpc" else server.http), timeout=5) as s:
                if kind == "head":
                    s.sendall(whole[:chaos.randrange(5, 60)])
                elif kind == "body":
                    s.sendall(whole[:-chaos.randrange(1, 100)])
                elif kind == "answer":
                    s.sendall(whole)
                elif kind == "grpc":
                    s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(chaos.randrange(0, 40)))
                elif kind == "volume":
                    s.sendall(b"POST /v1/segmentations?model=kidney_phantom HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n" + bytes(70000))
                if chaos.random() < 0.5:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST instead of FIN
            counts[kind] = counts.get(kind, 0) + 1
        except OSError:
            counts["refused"] = counts.get("refused", 0) + 1
        time.sleep(0.05)


def cycle(server, stop, counts):
    loaded = True
    while not stop.wait(5):
        status, _ = server.ask("POST", f"/v2/repository/models/cycled/{'unload' if loaded else 'load'}", b"")
        counts[str(status)] = counts.get(str(status), 0) + 1
        loaded = not loaded


def pictures(server, stop, counts, picture):
    while not stop.wait(0.5):
        status, _ = server.ask("POST", "/v2/models/photo_copies/infer", picture, {"Content-Type": "application/octet-stream"})
        counts[str(status)] = counts.get(str(status), 0) + 1


def submit(server, scan, accepted, refused):
    status, body = server.ask("POST", "/v1/segmentations?model=kidney_phantom", scan, {"Content-Type": "application/octet-stream"})
    if status == 202:
        accepted.append(json.loads(body)["id"])
    else:
        refused[str(status)] = refused.get(str(status), 0) + 1


def scans(server, stop, scan, accepted, refused):
    while not stop.wait(10):
        submit(server, scan, accepted, refused)


def ended(server, ids, seconds):
    end, states = time.time() + seconds, {}
    while time.time() < end:
        states = {i: json.loads(server.ask("GET", f"/v1/segmentations/{i}")[1]).get("status", "unknown") for i in ids}
        if all(s not in ("queued", "running") for s in states.values()):
            break
        time.sleep(0.5)
    return states


def soak(server, seconds, scan, picture):
    stop, counts = threading.Event(), {"vanished": {}, "cycled": {}, "pictures": {}, "jobs refused": {}}
    accepted, rss = [], []
    load = Load(server, 2 * 1000 / RUN_MS, stop)
    threads = [threading.Thread(target=lambda: asyncio.run(load.run())), threading.Thread(target=vanish, args=(server, stop, counts["vanished"])),
               threading.Thread(target=cycle, args=(server, stop, counts["cycled"])),
               threading.Thread(target=pictures, args=(server, stop, counts["pictures"], picture)),
               threading.Thread(target=scans, args=(server, stop, scan, accepted, counts["jobs refused"]))]
    for t in threads:
        t.start()
    start = time.time()
    while time.time() - start < seconds and server.process.poll() is None:
        rss.append(server.rss_bytes())
        time.sleep(1)
    crashed = server.process.poll() is not None
    stop.set()
    for t in threads:
        t.join(60)
    states = {} if crashed else ended(server, accepted, 120)
    by_status = {}
    for status, took in load.answers:
        by_status.setdefault(status, []).append(took)
    fifth = max(1, len(rss) // 5)
    early, late = statistics.median(rss[fifth:2 * fifth] or rss), statistics.median(rss[-fifth:])
    rejected = sorted(t for s, v in by_status.items() if s in (429, 503) for t in v)
    return {"seconds": seconds, "crashed": crashed, "sent_per_s": len(load.answers) / seconds, "capacity_per_s": 1000 / RUN_MS,
            "answers": {str(s): len(v) for s, v in sorted(by_status.items())}, "broken": load.broken,
            "rejections": {"count": len(rejected), "p50_ms": 1e3 * rejected[len(rejected) // 2] if rejected else None,
                           "p999_ms": 1e3 * rejected[int(len(rejected) * 0.999)] if rejected else None, "max_ms": 1e3 * rejected[-1] if rejected else None,
                           "beyond_50_ms": sum(t > REJECT_MS / 1e3 for t in rejected)},
            "rss_bytes": {"second_fifth": early, "last_fifth": late, "change": late / early - 1, "highest": max(rss)}, "counts": counts,
            "jobs": {"accepted": len(accepted), "states": sorted(states.values())}}


def kills(server, scan, times=3):
    found = []
    for _ in range(times):
        accepted, refused = [], {}
        for _ in range(4):
            submit(server, scan, accepted, refused)
        time.sleep(random.uniform(0.2, 1.5))
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        server.process.stdout.close()
        start = time.time()
        server.start()
        found.append({"accepted": len(accepted), "refused": refused, "restart_s": time.time() - start,
                      "states": sorted(ended(server, accepted, 120).values())})
    return found


def judge(d):
    s, missed = d["soak"], []
    if s["crashed"] or d["exit_code"] != 0:
        missed.append("the server ended by itself or not with 0")
    if abs(s["rss_bytes"]["change"]) > 0.05:
        missed.append(f"resident memory changed by {100 * s['rss_bytes']['change']:.1f} %")
    if s["rejections"]["beyond_50_ms"] or not s["rejections"]["count"]:
        missed.append(f"{s['rejections']['beyond_50_ms']} of {s['rejections']['count']} rejections took longer than {REJECT_MS} ms")
    if set(s["answers"]) - {"200", "429", "503"}:
        missed.append(f"answers {sorted(set(s['answers']) - {'200', '429', '503'})}")
    for jobs in (s["jobs"], *d["kills"]):
        if not jobs["accepted"] or jobs["states"] != ["succeeded"] * jobs["accepted"]:
            missed.append(f"of {jobs['accepted']} accepted jobs: {jobs['states']}")
    return missed


def markdown(d):
    s, r = d["soak"], d["soak"]["rejections"]
    ms = lambda v: "not available" if v is None else f"{v:.1f} ms"  # noqa: E731
    kills_text = "; ".join(f"{k['accepted']} jobs accepted, killed, ready again after {k['restart_s']:.2f} s, {k['states'].count('succeeded')} succeeded" for k in d["kills"])
    return "\n".join([
        "# Soak of the server", "", f"Date {d['date']}. Commit `{d['commit']}`. {d['machine']}. Written by `bench/serve_soak.py` (its head says what is done and held to); do not edit.", "",
        "| | |", "|---|---|", f"| length | {s['seconds'] / 60:.1f} min |",
        f"| load | {s['sent_per_s']:.0f} requests/s answered, capacity {s['capacity_per_s']:.0f}/s |", f"| answers by status | {s['answers']}; connections broken: {s['broken']} |",
        f"| rejections | {r['count']}: p50 {ms(r['p50_ms'])}, p99.9 {ms(r['p999_ms'])}, longest {ms(r['max_ms'])}; beyond {REJECT_MS} ms: {r['beyond_50_ms']} |",
        f"| resident memory, median of second and last fifth | {s['rss_bytes']['second_fifth'] / 1e6:.1f} → {s['rss_bytes']['last_fifth'] / 1e6:.1f} MB "
        f"({100 * s['rss_bytes']['change']:+.1f} %), highest {s['rss_bytes']['highest'] / 1e6:.1f} MB |",
        f"| clients that left, by where | {s['counts']['vanished']} |", f"| loads and unloads, by status | {s['counts']['cycled']} |",
        f"| pictures, by status | {s['counts']['pictures']} |", f"| volume jobs | {s['jobs']['accepted']} accepted, {s['jobs']['states'].count('succeeded')} succeeded; refused {s['counts']['jobs refused']} |",
        f"| kill -9 | {kills_text} |", f"| SIGTERM at the end | exit code {d['exit_code']} |", "", "Missed: " + ("; ".join(d["missed"]) or "nothing") + "."]) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--isoline", required=True)
    p.add_argument("-o", "--out", type=pathlib.Path, required=True, help="without ending: .json and .md are written")
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--commit", default="unknown")
    args = p.parse_args()
    random.seed(1)
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown CPU")
    d = {"command": "bench/serve_soak.py", "date": time.strftime("%Y-%m-%d"), "commit": args.commit, "machine": f"{len(os.sched_getaffinity(0))} cores, {cpu}"}
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        subprocess.run([args.isoline, "phantom", "--seed", "3", "--shape", "32,64,64", "--spacing", "6,5,5", "-o", work / "scan", "-q"], check=True)
        scan = next((work / "scan/imagesTs").glob("*.nii.gz")).read_bytes()
        picture = (ROOT / "docs/images/lab-report.png").read_bytes()
        server = Server(args.isoline, work)
        server.start()
        try:
            d["soak"] = soak(server, args.minutes * 60, scan, picture)
            d["kills"] = kills(server, scan) if not d["soak"]["crashed"] else []
            server.process.terminate()
            d["exit_code"] = server.process.wait(60)
        finally:
            if server.process.poll() is None:
                server.process.kill()
    d["missed"] = judge(d)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(f"{args.out}.json").write_text(json.dumps(d, indent=1) + "\n")
    pathlib.Path(f"{args.out}.md").write_text(markdown(d))
    print(markdown(d))
    return 1 if d["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
