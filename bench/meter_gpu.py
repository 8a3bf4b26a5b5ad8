#!/usr/bin/env python3
"""What `isoline meter` says on a GPU: calibration, idle in two states, a long load and many short ones.

    python3 bench/meter_gpu.py --isoline PATH -o FOLDER [--commit HASH]

Needs a GPU, PyTorch and an otherwise idle machine; takes about five minutes. Writes meter-gpu.json (everything),
meter-gpu.md (the figures) and trace-*.csv (every reading) into FOLDER. The load is a bf16 matrix product, 8192 cubed,
on random data, in a process of its own. `--quick` keeps the calibration, both idle states, the 60-s load and six short
loads (100 s). `--fake` replaces the load by sleeping, `--scale` shortens every time: to try the script with a stand-in
NVML (`--nvml`).
"""
import argparse
import datetime
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import threading
import time

SIZE = 8192


class Load:
    """Matrix products in a row; run(n) returns when they are done, with the monotonic times of begin and end."""

    def __init__(self, fake):
        self.fake = fake
        if fake:
            self.unit_s = 0.0015
            return
        import torch
        self.torch = torch
        generator = torch.Generator(device="cuda").manual_seed(1)
        make = lambda: torch.randn(SIZE, SIZE, device="cuda", generator=generator).to(torch.bfloat16)
        self.a, self.b = make(), make()
        self.out = torch.empty_like(self.a)
        self.run(50)
        begin, end = self.run(500)
        self.unit_s = (end - begin) * 1e-9 / 500

    def run(self, n):
        begin = time.monotonic_ns()
        if self.fake:
            time.sleep(n * self.unit_s)
        else:
            for i in range(n):
                self.torch.matmul(self.a, self.b, out=self.out)
                if i % 64 == 63:
                    self.torch.cuda.synchronize()
            self.torch.cuda.synchronize()
        return begin, time.monotonic_ns()

    def count(self, seconds):
        return max(1, round(seconds / self.unit_s))


class Remote:
    """A Load in another process, which holds the context and the memory."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = json.loads(self.process.stdout.readline())
        self.unit_s = self.facts["unit_s"]

    def run(self, n):
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return tuple(json.loads(self.process.stdout.readline()))

    def count(self, seconds):
        return max(1, round(seconds / self.unit_s))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Session:
    """`isoline meter session`: one line asked, one JSON object answered."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        json.loads(self.process.stdout.readline())

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def value(reading):
    return reading.get("value")


def text(reading, form="{:.2f}", scale=1.0):
    v = value(reading)
    return form.format(v * scale) if v is not None else "unavailable: " + reading["reason"]


def spread(values):
    values = [v for v in values if v is not None]
    if not values:
        return None
    mean = statistics.fmean(values)
    sd = statistics.stdev(values) if len(values) > 1 else float("nan")
    return {"n": len(values), "mean": mean, "sd": sd, "cv": sd / mean if mean else float("nan"), "min": min(values),
            "max": max(values)}


def line_fit(xs, ys):
    """Least squares y = a + b x, with the standard error of a."""
    n, mx, my = len(xs), statistics.fmean(xs), statistics.fmean(ys)
    sxx = sum((x - mx) ** 2 for x in xs)
    b = sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / sxx
    a = my - b * mx
    residual = math.sqrt(sum((y - a - b * x) ** 2 for x, y in zip(xs, ys)) / max(1, n - 2))
    return {"intercept_j": a, "slope_w": b, "residual_sd_j": residual,
            "intercept_se_j": residual * math.sqrt(1 / n + mx * mx / sxx), "n": n}


def read_trace(path):
    """{what: [(t_s, value)]} of the first source."""
    rows = {}
    with open(path) as f:
        next(f)
        for line in f:
            t, source, what, v = line.rstrip("\n").split(",")
            if source == "0":
                rows.setdefault(what, []).append((float(t), float(v)))
    return rows


def step_delays(trace, begin_s, end_s):
    """How late the two readings see a load begin and end. Counter: where the straight lines through its values before
    and after the step cross, after the step. Power: first sample past the middle between the levels."""
    counter, power = trace.get("counter_j", []), trace.get("power_w", [])

    def line(t0, t1):
        points = [(t, v) for t, v in counter if t0 <= t <= t1]
        return line_fit([t - begin_s for t, _ in points], [v for _, v in points]) if len(points) >= 4 else None

    def cross(a, b):
        if not a or not b or abs(b["slope_w"] - a["slope_w"]) < 20:
            return None
        return (a["intercept_j"] - b["intercept_j"]) / (b["slope_w"] - a["slope_w"])

    def level(t0, t1):
        v = [v for t, v in power if t0 <= t <= t1]
        return statistics.median(v) if v else None

    load = line(begin_s + 0.6, begin_s + 2.6), line(end_s - 2, end_s - 0.2)
    rest = line(begin_s - 0.9, begin_s - 0.05), line(end_s + 0.5, end_s + 1.5)
    out = {"counter_begin_s": cross(rest[0], load[0]), "counter_end_s": None, "power_begin_s": None, "power_end_s": None}
    at_end = cross(load[1], rest[1])
    if at_end is not None:
        out["counter_end_s"] = at_end - (end_s - begin_s)
    before, during, after = level(begin_s - 0.5, begin_s), level(begin_s + 1, end_s), level(end_s + 0.5, end_s + 1.2)
    if None not in (before, during, after):
        up = [t for t, v in power if begin_s <= t <= end_s and v > (before + during) / 2]
        down = [t for t, v in power if t >= end_s and v < (after + during) / 2]
        out["power_begin_s"] = up[0] - begin_s if up else None
        out["power_end_s"] = down[0] - end_s if down else None
        out["levels_w"] = [before, during, after]
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--isoline", default="isoline")
    p.add_argument("-o", "--output", type=pathlib.Path)
    p.add_argument("--commit", default="")
    p.add_argument("--nvml")
    p.add_argument("--fake", action="store_true")
    p.add_argument("--scale", type=float, default=1.0)
    p.add_argument("--load", type=float, help=argparse.SUPPRESS)  # child: load for so many seconds
    p.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)  # child: loads on demand, sleeps between
    p.add_argument("--quick", action="store_true")
    args = p.parse_args()

    if args.load or args.serve:
        load = Load(args.fake)
        if args.serve:
            facts = {"unit_s": load.unit_s}
            if not args.fake:
                facts["torch"] = load.torch.__version__
            print(json.dumps(facts), flush=True)
            for line in sys.stdin:
                print(json.dumps(load.run(int(line))), flush=True)
            return
        times = []
        until = time.monotonic() + args.load
        while time.monotonic() < until:
            times.append(load.run(load.count(0.5)))
        print(json.dumps({"begin_ns": times[0][0], "end_ns": times[-1][1], "products": len(times) * load.count(0.5)}))
        return

    out = args.output or p.error("-o is needed")
    out.mkdir(parents=True, exist_ok=True)
    scale = args.scale
    common = ["--nvml", args.nvml] if args.nvml else []

    def isoline(verb, *more):
        return [args.isoline, "meter", verb, *common, *map(str, more)]

    def ask(verb, *more):
        done = subprocess.run(isoline(verb, "--json", *more), stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)

    def child(*more):
        fake = ["--fake"] if args.fake else []
        return [sys.executable, os.path.relpath(__file__), *fake, *map(str, more)]

    def step(message):
        print(f"[{time.monotonic() - started:6.1f} s] {message}", flush=True)

    started = time.monotonic()
    r = {"format": "isoline-meter-gpu/1", "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
         "commit": args.commit, "command": "python3 bench/meter_gpu.py " + " ".join(a if a != str(args.output) else "OUT" for a in sys.argv[1:]),
         "kernel": platform.release(), "python": platform.python_version(), "scale": scale, "fake": args.fake}

    quick = args.quick
    step("list")
    r["list_cold"] = ask("list")
    step("idle, cold")
    r["idle_cold"] = ask("idle", "--seconds", max(0.5, (5 if quick else 15) * scale))
    step("calibration, cold")
    r["calibration_cold"] = ask("calibrate", "--seconds", max(1, (2 if quick else 5) * scale))

    step("start of the load's process")
    load = Remote(child("--serve"))
    r["torch"] = load.facts.get("torch")
    r["product_ms"] = load.unit_s * 1e3
    if not args.fake:
        r["tflops"] = 2 * SIZE**3 / load.unit_s * 1e-12
    idle_s = max(0.5, (5 if quick else 15) * scale)
    if not quick:
        step("idle, context alive")
        time.sleep(5 * scale)
        r["idle_context"] = ask("idle", "--seconds", idle_s)
        stop = threading.Event()
        worker = threading.Thread(target=lambda: [load.run(load.count(0.2)) for _ in iter(stop.is_set, True)])
        worker.start()
        time.sleep(1 * scale)
        step("calibration, under load")
        r["calibration_load"] = ask("calibrate", "--seconds", max(1, 5 * scale))
        stop.set()
        worker.join()

    step("short loads")
    session = Session(isoline("session", "--trace", out / "trace-short.csv", "--seed", 7))
    session.ask(f"process {load.process.pid}")
    windows = []
    plan = [(1, "aligned", 0.0, 3), (1, "random", 0.0, 3)] if quick else [
        (1, "aligned", 0.0, 10), (1, "random", 0.0, 10), (3, "aligned", 0.0, 4), (3, "random", 0.0, 4),
        (1, "aligned", 0.5, 6), (10, "aligned", 0.0, 2), (10, "random", 0.0, 2)]
    if not quick:
        load.run(load.count(2 * scale))  # warm
    for seconds, phase, tail, repeats in plan:
        n = load.count(seconds * scale)
        for _ in range(repeats):
            time.sleep((2.0 if seconds >= 10 else 0.4) * scale)
            token = session.ask(f"begin {phase}")["token"]
            begin, end = load.run(n)
            time.sleep(tail)
            w = session.ask(f"end {token}")
            windows.append({"seconds": seconds, "phase": phase, "tail_s": tail, "products": n, "load_begin_ns": begin,
                            "load_end_ns": end, "window": w})
    if not quick:
        step("20-s window of load alone")
        time.sleep(2 * scale)
        token = session.ask("begin aligned")["token"]
        n = load.count(20 * scale)
        begin, end = load.run(n)
        r["window20"] = {"products": n, "load_begin_ns": begin, "load_end_ns": end, "window": session.ask(f"end {token}")}
        time.sleep(2 * scale)
    session.close()
    r["windows"] = windows
    step("idle, context alive, hot")
    time.sleep(3 * scale)
    r["idle_hot"] = ask("idle", "--seconds", idle_s)
    r["list_context"] = ask("list")
    load.close()

    step("60-s load under meter run")
    report = out / "run60.json"
    done = subprocess.run(isoline("run", "-q", "-o", report, "--trace", out / "trace-run60.csv", "--",
                                  *child("--load", 60 * scale)), stdout=subprocess.PIPE, text=True)
    r["run60"] = json.loads(report.read_text())
    report.unlink()
    r["run60_load"] = json.loads(done.stdout) if done.returncode == 0 else {"exit_code": done.returncode}

    groups = []
    for seconds, phase, tail, _ in plan:
        mine = [w for w in windows if (w["seconds"], w["phase"], w["tail_s"]) == (seconds, phase, tail)]
        device = [w["window"]["devices"][0] for w in mine]
        groups.append({
            "seconds": seconds, "phase": phase, "tail_s": tail,
            "energy_j": spread([value(d["energy_gross_j"]) for d in device]),
            "integrated_j": spread([value(d["energy_integrated_j"]) for d in device]),
            "uncertainty_j": spread([value(d["energy_uncertainty_j"]) for d in device]),
            "disagreement": spread([value(d["energy_disagreement"]) for d in device]),
            "wall_s": spread([w["window"]["wall_s"] for w in mine])})
    r["groups"] = groups
    plain = [w for w in windows if w["tail_s"] == 0 and value(w["window"]["devices"][0]["energy_gross_j"]) is not None]
    r["fit"] = None if quick else line_fit([w["window"]["wall_s"] for w in plain],
                        [value(w["window"]["devices"][0]["energy_gross_j"]) for w in plain])
    trace = read_trace(out / "trace-short.csv")
    long = [w for w in windows if w["seconds"] >= 10] + ([r["window20"]] if "window20" in r else [])
    r["delays"] = [step_delays(trace, w["load_begin_ns"] * 1e-9, w["load_end_ns"] * 1e-9)
                   for w in long]
    r["took_s"] = time.monotonic() - started
    (out / "meter-gpu.json").write_text(json.dumps(r, indent=1) + "\n")
    markdown = write_markdown(r)
    (out / "meter-gpu.md").write_text(markdown)
    print(markdown)


def quantiles(q, scale, unit):
    if q["n"] == 0:
        return "not measured"
    return f"{q['median'] * scale:.3g} {unit} (p99 {q['p99'] * scale:.3g}, n {q['n']})"


def write_markdown(r):
    source = next(s for s in r["list_cold"]["sources"] if s["available"])
    facts = source["facts"]
    lines = [f"# `isoline meter` on {source['name']}", "",
             "Written by `bench/meter_gpu.py`; the JSON file of the same name holds every number.", ""]
    if r["fake"]:
        lines += ["**Made with a stand-in for the device: no measurement.**", ""]
    lines += ["| | |", "|---|---|",
              f"| date, commit | {r['date']}, {r['commit'] or 'not given'} |",
              f"| command | `{r['command']}` |",
              f"| device | {source['name']}, driver {facts['driver']}, power limit {facts['power_limit_w']} W, "
              f"persistence {facts['persistence']}, ECC {facts['ecc']}, MIG {facts['mig']} |",
              f"| memory call | {facts['memory_call']} |",
              f"| energy counter | {source['counter']} |",
              f"| second reading | {source['power']} |",
              f"| host | Linux {r['kernel']}, Python {r['python']}, PyTorch {r.get('torch', 'none')} |"]
    if "tflops" in r:
        lines.append(f"| load | bf16 matrix product {SIZE} cubed, {r['product_ms']:.3f} ms each, {r['tflops']:.0f} TFLOP/s |")
    for s in r["list_cold"]["sources"]:
        if not s["available"]:
            lines.append(f"| {s['id']} | unavailable: {s['reason']} |")

    calibrations = [r[k] for k in ("calibration_cold", "calibration_load") if k in r]
    lines += ["", "## Calibration", "", "| | cold |" + " under load |" * (len(calibrations) - 1),
              "|---|---|" + "---|" * (len(calibrations) - 1)]
    for key, name, scale, unit in [("tick_period_s", "counter tick", 1e3, "ms"), ("tick_step_j", "counter step", 1, "J"),
                                   ("power_refresh_s", "power refresh (visible changes)", 1e3, "ms"),
                                   ("counter_call_us", "counter call", 1, "us"), ("power_call_us", "power call", 1, "us"),
                                   ("health_call_us", "health call", 1, "us"), ("memory_call_us", "memory call", 1, "us")]:
        lines.append(f"| {name} | " + " | ".join(quantiles(c["sources"][0][key], scale, unit) for c in calibrations) + " |")
    lines.append("| the meter itself, share of one core | " +
                 " | ".join(f"{c['meter_cpu_fraction'] * 100:.2f} %" for c in calibrations) + " |")

    lines += ["", "## Idle", "", "| state asked for | state seen | contexts | power, counter W | uncertainty W | "
              "power, integrated W | SM clock MHz | temperature C | seconds |", "|---|---|---|---|---|---|---|---|---|"]
    for key, name in [("idle_cold", "cold (no context)"), ("idle_context", "context alive, 5 s after its warm-up"),
                      ("idle_hot", "context alive, 3 s after loads (hot)")]:
        if key not in r:
            continue
        d = r[key]["devices"][0]
        lines.append(f"| {name} | {d['state']} | {text(d['contexts'], '{:.0f}')} | {text(d['power_w'])} | "
                     f"{text(d['power_uncertainty_w'])} | {text(d['power_integrated_w'])} | "
                     f"{text(d['sm_clock_mean_mhz'], '{:.0f}')} | {text(d['temperature_max_c'], '{:.0f}')} | "
                     f"{r[key]['seconds']:.1f} |")

    lines += ["", "## 60 s of load", "",
              "`meter run` holds the whole child process: Python, context, warm-up, 60 s of load, exit." +
              (" The window holds 20 s of load alone, in a process that was warm." if "window20" in r else ""), ""]
    run = r["run60"]
    whole = [run] + ([r["window20"]["window"]] if "window20" in r else [])
    d = [w["devices"][0] for w in whole]
    lines += ["| | `meter run`, 60 s of load |" + (" window, 20 s |" if len(d) > 1 else ""), "|---|" + "---|" * len(d)]
    lines.append("| wall s | " + " | ".join(f"{w['wall_s']:.3f}" for w in whole) + " |")
    for key, name, form, scale in [
            ("energy_gross_j", "energy, counter J", "{:.1f}", 1), ("energy_uncertainty_j", "its uncertainty J", "{:.2f}", 1),
            ("energy_integrated_j", "energy, integrated J", "{:.1f}", 1),
            ("energy_disagreement", "disagreement (counter - integrated) / counter, %", "{:.3f}", 100),
            ("average_power_w", "average power W", "{:.1f}", 1), ("peak_power_w", "peak power W", "{:.1f}", 1),
            ("peak_vram_bytes", "peak VRAM, device MiB", "{:.0f}", 2**-20),
            ("peak_process_vram_bytes", "peak VRAM, process MiB", "{:.0f}", 2**-20),
            ("temperature_max_c", "temperature C", "{:.0f}", 1), ("sm_clock_mean_mhz", "SM clock, mean MHz", "{:.0f}", 1),
            ("sm_clock_min_mhz", "SM clock, lowest MHz", "{:.0f}", 1)]:
        lines.append(f"| {name} | " + " | ".join(text(x[key], form, scale) for x in d) + " |")
    lines.append("| clock events | " + " | ".join(", ".join(x["throttle_reasons"]) or "none" for x in d) + " |")
    lines.append("| power samples, missed, largest gap s | " + " | ".join(
        f"{x['power_samples']}, {x['missed_samples']}, {x['largest_gap_s']:.3f}" for x in d) + " |")
    lines.append(f"| CPU s and peak RSS MiB of the child | {run['cpu_s']:.1f}, {text(run['peak_rss_bytes'], '{:.0f}', 2**-20)} |"
                 + " |" * (len(d) - 1))
    lines.append("| CPU of the meter, share of one core | " + " | ".join(
        f"{value(w['meter_cpu_s']) / w['wall_s'] * 100:.2f} %" for w in whole) + " |")

    lines += ["", "## Short loads: the same work again and again", "",
              "Energy of windows around a fixed number of products. *sd* is over the repetitions and contains the device's own "
              "variation; *uncertainty* is the meter's stated worst-case bound for one window (mean).", "",
              "| load s | phase | tail s | n | wall s | energy J | sd J | sd % | uncertainty J | uncertainty % | "
              "disagreement %, mean | min … max |", "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for g in r["groups"]:
        e, u, w, dis = g["energy_j"], g["uncertainty_j"], g["wall_s"], g["disagreement"]
        if not e or not dis:
            lines.append(f"| {g['seconds']} | {g['phase']} | {g['tail_s']} | 0 | | unavailable | | | | | | |")
            continue
        lines.append(f"| {g['seconds']} | {g['phase']} | {g['tail_s']} | {e['n']} | {w['mean']:.4f} | {e['mean']:.1f} | {e['sd']:.2f} | "
                     f"{e['cv'] * 100:.2f} | {u['mean']:.2f} | {u['mean'] / e['mean'] * 100:.2f} | {dis['mean'] * 100:.2f} | "
                     f"{dis['min'] * 100:.2f} … {dis['max'] * 100:.2f} |")
    if r["delays"]:
        lines += ["", "## Where the readings show the step", "",
                  "Seconds from the true begin and end of a load (host clock, device synchronised) to where the reading shows it; "
                  "loads of 10 and 20 s after 2 s of rest. Counter: crossing of the lines through its values before and after the "
                  "step, the later line taken from 0.6 s on; before the step means that power overshot its later level first. "
                  "Power: first sample past the middle.", "",
                  "| counter, begin | counter, end | power, begin | power, end | levels W: before, during, after |",
                  "|---|---|---|---|---|"]
        for d in r["delays"]:
            cells = ["" if d[k] is None else f"{d[k]:.3f}"
                     for k in ("counter_begin_s", "counter_end_s", "power_begin_s", "power_end_s")]
            lines.append("| " + " | ".join(cells) + " | " + ", ".join(f"{v:.0f}" for v in d.get("levels_w", [])) + " |")
    f = r["fit"]
    if f:
        lines += ["", f"Energy against wall time over the {f['n']} windows without tail: {f['slope_w']:.1f} W x t "
                  f"{f['intercept_j']:+.1f} J (standard error of the intercept {f['intercept_se_j']:.1f} J). A negative intercept "
                  "would be energy that the counter publishes only after a window has ended (lag); a positive one is power that "
                  "overshoots at the begin of a load."]
    lines += ["", f"The whole script took {r['took_s']:.0f} s.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
