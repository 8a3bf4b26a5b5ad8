#!/usr/bin/env python3
"""Writes tests/goldens/lab/{gpu,cpu}_run.json: two invented runs of one model over the same ten cases, for tests of
`isoline compare` and `isoline report`. No figure in them was measured. Standard library only; same bytes every time."""
import json
import math
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent / "lab"
CASES = [f"case_{i:05d}" for i in (3, 17, 42, 58, 77, 101, 134, 160, 188, 212)]
REGIONS = [("kidney_and_mass", "1,2,3", 1.0330772532390826), ("mass", "2,3", 1.1328796488598762),
           ("tumor", "2", 1.1498198361434828)]
DELTA = {"kidney_and_mass": 0.005, "mass": 0.01, "tumor": 0.01}
T95, T975 = 1.8331, 2.2622  # Student's t, 9 degrees of freedom
INVENTED = "Invented figures for tests: nothing here was measured."


def r(x, digits=6):
    return float(f"{x:.{digits}g}")


def unavailable(why):
    return {"value": None, "reason": why}


def of(x):
    return {"value": r(x)}


def mean(v):
    return sum(v) / len(v)


def sd(v):
    m = mean(v)
    return math.sqrt(sum((x - m) ** 2 for x in v) / (len(v) - 1))


def estimate(v):
    half = T975 * sd(v) / math.sqrt(len(v))
    return {"value": r(mean(v)), "low": r(mean(v) - half), "high": r(mean(v) + half), "n": len(v)}


def log_estimate(v):
    e = estimate([math.log(x) for x in v])
    return {**{k: r(math.exp(e[k])) for k in ("value", "low", "high")}, "n": len(v)}


def quantile(v, q):
    s, at = sorted(v), q * (len(v) - 1)
    low = int(at)
    return s[low] + (at - low) * (s[min(low + 1, len(s) - 1)] - s[low])


def spread(v, n=None):
    n = n or len(v)
    out = {"n": n, "mean": r(mean(v)), "min": r(min(v))}
    out |= {k: r(quantile(v, q)) for k, q in (("q1", .25), ("median", .5), ("q3", .75))} | {"max": r(max(v))}
    for name, q, least in (("p90", .9, 10), ("p95", .95, 20), ("p99", .99, 100)):
        out[name] = r(quantile(v, q)) if n >= least else None
    return out


def run(gpu):
    rng, shared = random.Random(20260401 + gpu), random.Random(7)  # both machines see the same cases
    sizes = [shared.uniform(.55, 1.9) for _ in CASES]
    quality = {reg: [min(.985, shared.gauss(m, s)) for _ in CASES]
               for reg, m, s in (("kidney_and_mass", .955, .012), ("mass", .84, .05), ("tumor", .80, .07))}
    no_gpu = "no accelerator in this machine"
    no_rapl = "RAPL is not readable here (permission)"
    # name, what changes, values, network s of the mean case, watts, Dice loss per region (mean, sd), windows factor
    if gpu:
        plan = [("B0", "fp32, step 0.50, mirrored", ("fp32", "torch", "0.50", "yes"), 31.0, 402, (0, 0), 1.0),
                ("01 half precision", "bf16 instead of fp32", ("bf16", "torch", "0.50", "yes"), 14.6, 388, (.0001, .0006), 1.0),
                ("02 eight bits", "int8 instead of bf16", ("int8", "torch", "0.50", "yes"), None, None, None, 1.0),
                ("03 step 0.75", "windows overlap by a quarter", ("bf16", "torch", "0.75", "yes"), 5.2, 371, (.0012, .0022), .36),
                ("04 no mirroring", "one pass a window instead of eight", ("bf16", "torch", "0.75", "no"), .82, 322, (.0145, .0080), .36),
                ("05 compiled runtime", "compiled instead of eager", ("bf16", "compiled", "0.75", "no"), .41, 335, (.0146, .0082), .36)]
        other, forward_ms, idle_w, rss, vram = 5.6, 11.9, 118.0, 6.3, 9.6
    else:
        plan = [("B0", "fp32, step 0.50, mirrored", ("fp32", "native", "0.50", "yes"), 1630.0, None, (0, 0), 1.0),
                ("01 half precision", "bf16 instead of fp32", ("bf16", "native", "0.50", "yes"), 805.0, None, (.0001, .0006), 1.0),
                ("03 step 0.75", "windows overlap by a quarter", ("bf16", "native", "0.75", "yes"), 291.0, None, (.0012, .0022), .36)]
        other, forward_ms, idle_w, rss, vram = 7.9, 640.0, None, 5.1, None

    settings, base_cases = [], None
    for name, about, values, net_s, watts, loss, windows in plan:
        s = {"name": name, "description": about,
             "values": dict(zip(("precision", "backend", "step", "mirroring"), values))}
        settings.append(s)
        if net_s is None:
            s["not_run"] = "no int8 weights for this network"
            continue
        s["runtime"] = f"{values[1]} 1.0 ({'gpu' if gpu else '16 threads'})"
        cases = []
        for i, case in enumerate(CASES):
            net = net_s * sizes[i] * rng.uniform(.98, 1.02)
            stages = {"read": .35 * sizes[i], "preprocess": 2.1 * sizes[i], "network": net,
                      "export": (other - 3.1) * sizes[i], "write": .3 * sizes[i]}
            wall = sum(stages.values()) + .05
            repeats = sorted(r(wall * f) for f in (1, rng.uniform(1.001, 1.01), rng.uniform(.992, .999)))
            c = {"case_id": case, "wall_s": repeats[1], "wall_s_all": repeats,
                 "stages_s": {k: r(v) for k, v in stages.items()},
                 "windows": int(96 * sizes[i] * windows), "dice": {}, "surface_dice": {}, "hd95_mm": {}}
            c["forwards"] = c["windows"] * (8 if values[3] == "yes" else 1)
            if gpu:
                gross = net * watts + (wall - net) * (idle_w + 14)
                c["energy_gross_j"], c["energy_net_j"] = of(gross), of(gross - idle_w * wall)
            else:
                c["energy_gross_j"] = c["energy_net_j"] = unavailable(no_gpu)
            c["cpu_energy_j"] = unavailable(no_rapl)
            for reg, _, _ in REGIONS:
                scale = {"kidney_and_mass": .25, "mass": 1, "tumor": 1.25}[reg]
                d = quality[reg][i] - scale * (rng.gauss(*loss) if loss[1] else 0)
                c["dice"][reg] = r(d)
                c["surface_dice"][reg] = r(max(0, d - .02 - .12 * (1 - d)))
                c["hd95_mm"][reg] = r(1.2 + 40 * (1 - d))
            c["disagreement"] = r(abs(rng.gauss(loss[0] * .05, loss[1] * .02))) if loss[1] else None
            cases.append(c)
        base_cases = base_cases or cases
        wall = [c["wall_s"] for c in cases]
        s |= {"cases": len(cases), "wall_s": spread(wall), "s_per_case": estimate(wall), "per_case": cases,
              "stages_s": {k: r(mean([c["stages_s"][k] for c in cases])) for k in cases[0]["stages_s"]}}
        faster = {"fp32": 1, "bf16": .48}[values[0]] * (.5 if values[1] == "compiled" else 1)
        pulses = [forward_ms * faster * rng.lognormvariate(0, .05) for _ in range(400)]
        s["window_ms"] = spread(pulses, sum(c["forwards"] for c in cases))
        if gpu:
            gross = mean([c["energy_gross_j"]["value"] for c in cases])
            s |= {"energy_gross_j": of(gross), "energy_net_j": of(mean([c["energy_net_j"]["value"] for c in cases])),
                  "energy_integrated_j": of(gross * .9962), "energy_disagreement": of(.0038),
                  "average_power_w": of(gross / mean(wall)), "peak_power_w": of(watts * 1.12),
                  "peak_vram_bytes": of(vram * 2**30 * (.62 if values[0] != "fp32" else 1))}
        else:
            s |= {k: unavailable(no_gpu) for k in ("energy_gross_j", "energy_net_j", "energy_integrated_j",
                                                   "energy_disagreement", "average_power_w", "peak_power_w", "peak_vram_bytes")}
        s |= {"cpu_energy_j": unavailable(no_rapl), "cpu_s": of(mean(wall) * (1.1 if gpu else 15.2)),
              "peak_rss_bytes": of(rss * 2**30)}
        s["quality"] = [{"region": reg, "dice": estimate([c["dice"][reg] for c in cases]),
                         "dice_nnunet": r(mean([c["dice"][reg] for c in cases])),
                         "surface_dice": estimate([c["surface_dice"][reg] for c in cases]), "tolerance_mm": tol,
                         "hd95_median_mm": r(quantile([c["hd95_mm"][reg] for c in cases], .5)), "hd95_infinite": 0}
                        for reg, _, tol in REGIONS]
        lost = 0 if loss[0] < .01 else 2
        s["lesions"] = [{"region": "mass", "definition": "26-connected components of at least 3 voxels; found: Dice with one predicted component of at least 0.10",
                         "reference": 14, "found": 13 - lost, "false_positive": 3 + (loss[0] > .001), "lost": lost, "gained": 0}]
        s["pareto"] = not name.startswith("04")
        if cases is base_cases:
            continue
        s["speedup"] = log_estimate([b["wall_s"] / c["wall_s"] for b, c in zip(base_cases, cases)])
        if gpu:
            s["energy_reduction"] = log_estimate(
                [b["energy_gross_j"]["value"] / c["energy_gross_j"]["value"] for b, c in zip(base_cases, cases)])
        s["disagreement_mean"] = r(mean([c["disagreement"] for c in cases]))
        s["disagreement_max"] = r(max(c["disagreement"] for c in cases))
        s["endpoints"], verdicts = [], []
        for reg, _, _ in REGIONS:
            d = [c["dice"][reg] - b["dice"][reg] for b, c in zip(base_cases, cases)]
            m, half = mean(d), T95 * sd(d) / math.sqrt(len(d))
            delta = DELTA[reg]
            v = "preserved" if m - half > -delta else "not preserved" if m + half < -delta else "inconclusive"
            verdicts.append(v)
            need = [max(6, math.ceil(((1.645 + z) * sd(d) / delta) ** 2)) for z in (.842, 1.282)]
            s["endpoints"].append(
                {"metric": "dice", "region": reg, "delta": delta, "n": len(d),
                 "baseline_mean": r(mean([b["dice"][reg] for b in base_cases])),
                 "setting_mean": r(mean([c["dice"][reg] for c in cases])), "mean_difference": r(m),
                 "sd_difference": r(sd(d)), "lower_bound": r(m - half), "upper_bound": r(m + half), "verdict": v,
                 "why": {"preserved": "the lower bound lies above -delta", "not preserved": "the upper bound lies below -delta",
                         "inconclusive": "the bounds include -delta"}[v],
                 "n_needed_80": need[0], "n_needed_90": need[1], "bound_method": "Student's t (test fixture)"})
        s["verdict"] = "not preserved" if "not preserved" in verdicts else "inconclusive" if "inconclusive" in verdicts else "preserved"
        if name.startswith("04"):
            s["notes"] = ["case_00101: repetition 2 discarded, clocks were throttled (thermal); repeated once"]

    device = "Test GPU 80" if gpu else "Test CPU 16"
    return {
        "format": "isoline-run-summary/1", "kind": "measured", "id": "EXP-TEST-GPU" if gpu else "EXP-TEST-CPU",
        "title": "Training-free settings on a frozen kidney network", "device_name": device,
        "device_kind": "gpu" if gpu else "cpu",
        "boundary": "file to file: from opening the scan to the closed label file; model loading not included",
        "provenance": {"isoline_version": "0.1.0", "commit": "0123456789ab", "started": "2026-04-01T08:00:00Z" if gpu else "2026-04-03T08:00:00Z",
                       "finished": "2026-04-01T11:24:10Z" if gpu else "2026-04-04T01:10:55Z", "model_name": "kidney_test (PlainConvUNet, 128x128x128)",
                       "model_sha256": "5f" * 32, "cases_sha256": "a7" * 32, "experiment_sha256": ("c3" if gpu else "d4") * 32,
                       "device": {"name": device, "cores": "16", "ram_bytes": "137438953472", "os": "Linux 6.1"} |
                       ({"driver": "550.54", "power_limit_w": "700", "uuid": "GPU-00000000-test"} if gpu else {})},
        "registration": {"status": "registered", "sha256": "9b" * 32, "time": "2026-03-31T16:02:11Z", "file": "kidney.registration.json", "changes": []} if gpu
        else {"status": "changed", "sha256": "9b" * 32, "time": "2026-03-31T16:02:11Z", "file": "kidney.registration.json",
              "changes": ["endpoint dice/mass: delta 0.005 -> 0.01"]},
        "mode": "sequence", "order": "interleaved", "seed": 7, "repetitions": 3, "warmup": 1, "case_ids": CASES,
        "regions": [[n, labels] for n, labels, _ in REGIONS],
        "definitions": ["Dice = 2|P n R| / (|P| + |R|); both empty: 1",
                        "Surface Dice as in google-deepmind/surface-distance (d <= tolerance), KiTS23 tolerances"],
        "energy_source": "NVML total energy counter, aligned to its ticks" if gpu else no_gpu + "; " + no_rapl,
        "idle_power_w": {"context alive": of(118), "cold": of(71)} if gpu else {"context alive": unavailable(no_gpu), "cold": unavailable(no_gpu)},
        "idle_protocol": "30 s before the first and after the last case; the tail after a case belongs to that case" if gpu else "",
        "meter": {"tick": "100 ms", "refresh": "101 ms", "call cost": "21 us"} if gpu else {},
        "baseline": "B0", "settings": settings, "remarks": [INVENTED]}


HERE.mkdir(exist_ok=True)
for kind, is_gpu in (("gpu", True), ("cpu", False)):
    (HERE / f"{kind}_run.json").write_text(json.dumps(run(is_gpu), indent=1) + "\n")
