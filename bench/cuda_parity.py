#!/usr/bin/env python3
"""Official nnU-Net (autocast fp16) and Isoline (fp16) on one GPU in one run: labels, Dice, seconds, energy.

    cuda_parity.py --isoline ISOLINE -o OUT --suite NAME=MODEL_FOLDER=SCANS [--suite ...] [--big NAME=MODEL_FOLDER=SCANS] [--bench CUDA_BENCH]
    cuda_parity.py --kits LABELS.nii.gz[,MORE] --phantom-code FOLDER --scans OUT [--crop Z,Y,X | --as Z,Y,X:SZ,SY,SX]

SCANS: a folder with imagesTs and labelsTs, from `isoline phantom` or from the second form, which makes a CT around label maps.
Every suite runs official nnU-Net in two processes (its own run-to-run difference; cuDNN chooses its kernels by measuring) and Isoline
at the same settings: fp16, step .5, all mirrors, Gaussian. `--big` adds times: official once with everything measured, at step .5 with
mirroring and at .75 without; Isoline on the same scan twice in a process. Boundary of the official's times: array in memory to label
array in memory (its compressed reading and writing is not counted); of Isoline's: file to file.
Needs torch with CUDA, nnunetv2 2.8.1 and nibabel. Optional imports of nnunetv2 that this path does not use are stood in for.
"""
import argparse
import ctypes
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

STOOD_IN = ("blosc2", "SimpleITK", "graphviz", "imagecodecs", "yacs", "yacs.config", "cc3d", "future", "unittest2", "fft_conv_pytorch",
            "connected_components_3d")


def joules():
    """The GPU's energy counter, or None where there is none."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        device, value = ctypes.c_void_p(), ctypes.c_ulonglong()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)):
            return None
        return None if nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(value)) else value.value / 1e3
    except OSError:
        return None


def read_nifti(path):
    """Stored values [z, y, x] and spacing [z, y, x] of an integer or float file without scaling."""
    import numpy
    raw = gzip.open(path).read() if str(path).endswith(".gz") else pathlib.Path(path).read_bytes()
    shape = numpy.frombuffer(raw[42:48], "<i2")[::-1]
    code, offset = int.from_bytes(raw[70:72], "little"), int(numpy.frombuffer(raw[108:112], "<f4")[0])
    kind = {2: "<u1", 4: "<i2", 8: "<i4", 16: "<f4", 512: "<u2"}[code]
    return numpy.frombuffer(raw, kind, count=int(shape.prod(dtype="i8")), offset=offset).reshape(shape), [
        float(v) for v in numpy.frombuffer(raw[80:92], "<f4")[::-1]]


# Worker: official nnU-Net in a process of its own.

def official(args):
    from unittest.mock import MagicMock
    for name in STOOD_IN:
        try:
            __import__(name)
        except Exception:  # noqa: BLE001, whatever keeps it from being imported
            sys.modules[name] = MagicMock()
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, "/nonexistent")
    import numpy
    import torch
    from nnunetv2.inference.data_iterators import PreprocessAdapterFromNpy
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape as to_labels
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor = nnUNetPredictor(0.5, True, True, device.type == "cuda", device, False, False, False)
    predictor.initialize_from_trained_model_folder(args.model, ("0",))
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    said = {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version(), "cases": []}
    if args.patch_times:
        said["ms_per_patch"] = patch_times(predictor, torch)
    for scan in sorted(pathlib.Path(args.scans, "imagesTs").glob("*.nii.gz")):
        name = scan.name.removesuffix("_0000.nii.gz")
        data, spacing = read_nifti(scan)
        kept = pathlib.Path(args.keep, f"{name}.npz") if args.keep else None
        start = time.perf_counter()
        e0 = joules()
        # Preprocessing has no chance in it: the second process may take the first one's result.
        case = next(PreprocessAdapterFromNpy([data.astype(numpy.float32)[None]], [None], [{"spacing": spacing}], [None], predictor.plans_manager,
                                             predictor.dataset_json, predictor.configuration_manager, num_threads_in_multithreaded=1)) \
            if kept is None or not kept.with_suffix(".pt").exists() else torch.load(kept.with_suffix(".pt"), weights_only=False)
        preprocess_s, preprocess_j = time.perf_counter() - start, (joules() or 0) - (e0 or 0)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(case, kept.with_suffix(".pt"))
        for setting in args.settings.split(","):
            step, mirror = setting.split(":")
            predictor.tile_step_size, predictor.use_mirroring = float(step), mirror == "tta"
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            e1, t1 = joules(), time.perf_counter()
            logits = predictor.predict_logits_from_preprocessed_data(torch.as_tensor(case["data"])).cpu()
            t2 = time.perf_counter()
            labels = to_labels(logits, predictor.plans_manager, predictor.configuration_manager, predictor.label_manager, case["data_properties"])
            t3, e3 = time.perf_counter(), joules()
            numpy.save(out / f"{name}@{step}-{mirror}.npy", labels.astype(numpy.uint8))
            said["cases"].append({"name": name, "step": float(step), "tta": mirror == "tta", "prepared_shape": list(case["data"].shape[1:]),
                                  "preprocess_s": preprocess_s, "network_s": t2 - t1, "export_s": t3 - t2, "total_s": preprocess_s + t3 - t1,
                                  "energy_j": None if e1 is None else preprocess_j + e3 - e1,
                                  "peak_torch_bytes": torch.cuda.max_memory_reserved() if device.type == "cuda" else None})
            print(json.dumps(said["cases"][-1]), file=sys.stderr, flush=True)
    (out / "said.json").write_text(json.dumps(said))


def patch_times(predictor, torch):
    import copy
    network = predictor.network.cuda().eval()
    x = torch.randn(1, 1, *predictor.configuration_manager.patch_size, device="cuda")

    def ms(run, count=20):
        for _ in range(4):
            run()
        a, b = torch.cuda.Event(True), torch.cuda.Event(True)
        torch.cuda.synchronize()
        a.record()
        for _ in range(count):
            run()
        b.record()
        torch.cuda.synchronize()
        return a.elapsed_time(b) / count
    times = {}
    torch.backends.cudnn.benchmark = True
    with torch.inference_mode():
        torch.backends.cudnn.allow_tf32 = False
        times["fp32"] = ms(lambda: network(x), 6)
        torch.backends.cudnn.allow_tf32 = True
        times["tf32"] = ms(lambda: network(x))
        with torch.autocast("cuda"):
            times["autocast fp16"] = ms(lambda: network(x))
        try:
            with torch.autocast("cuda"):
                compiled = torch.compile(network)
                times["autocast fp16, torch.compile"] = ms(lambda: compiled(x))
            half, xh = torch.compile(copy.deepcopy(network).half()), x.half()
            times["half, torch.compile"] = ms(lambda: half(xh))
        except Exception as e:  # noqa: BLE001, the compiler needs more than torch; the rest of the run does not
            print("torch.compile failed:", e, file=sys.stderr, flush=True)
    return times


# Comparison.

def regions(model):
    """What Dice is taken of: name -> label values."""
    dataset = json.loads((model / "dataset.json").read_text())
    return {name: v if isinstance(v, list) else [v] for name, v in dataset["labels"].items() if name not in ("background", "ignore")}


def dice(a, b, values):
    import numpy
    a, b = numpy.isin(a, values), numpy.isin(b, values)
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else None


def compare(model, truth, first, second, ours):
    row = {"voxels": int(truth.size), "agreement": float((first == ours).mean()), "differing_voxels": int((first != ours).sum()), "dice": {}}
    if second is not None:
        row["official_run_to_run"] = float((first == second).mean())
        row["official_run_to_run_voxels"] = int((first != second).sum())
    for name, values in regions(model).items():
        score = {"official": dice(truth, first, values), "isoline": dice(truth, ours, values), "between": dice(first, ours, values)}
        if second is not None:
            score["official_again"] = dice(truth, second, values)
        score["change"] = None if None in (score["official"], score["isoline"]) else abs(score["official"] - score["isoline"])
        row["dice"][name] = score
    return row


def run_official(model, scans, out, settings, patch_times=False, keep=None):
    command = [sys.executable, __file__, "--worker", "--model", str(model), "--scans", str(scans), "-o", str(out), "--settings", settings]
    command += ["--patch-times"] if patch_times else []
    command += ["--keep", str(keep)] if keep else []
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"official nnU-Net failed on {scans}")
    return json.loads((out / "said.json").read_text())


def run_isoline(args, model, images, out, step, tta, meter=None):
    command = [str(args.isoline), "segment", "-m", str(model), "-i", str(images), "-o", str(out), "--backend", args.backend, "--precision",
               args.precision, "--step", step, "--tta", "all" if tta else "none", "--json", "-q"]
    if meter:
        command = [str(args.isoline), "meter", "run", "-q", "-o", str(meter), "--", *command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"isoline failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def parity(args, name, model, scans, work, settings="0.5:tta", patch_times=False, twice=True):
    import numpy
    a = run_official(model, scans, work / "official", settings, patch_times, work / "kept" if twice else None)
    if twice:
        b = run_official(model, scans, work / "official-again", "0.5:tta", False, work / "kept")
    rows = []
    for setting in settings.split(","):
        step, mirror = setting.split(":")
        ours = work / f"isoline@{step}-{mirror}"
        said = run_isoline(args, model, scans / "imagesTs", ours, step, mirror == "tta")
        for c in (c for c in a["cases"] if c["step"] == float(step) and c["tta"] == (mirror == "tta")):
            file = f"{c['name']}@{step}-{mirror}.npy"
            second = work / "official-again" / file
            labels, _ = read_nifti(next(ours.glob(f"{c['name']}.nii*")))
            truth, _ = read_nifti(next((scans / "labelsTs").glob(f"{c['name']}.nii*")))
            row = compare(model, truth, numpy.load(work / "official" / file), numpy.load(second) if second.exists() else None, labels)
            rows.append({"suite": name, "case": c["name"], "step": float(step), "tta": mirror == "tta", "ran_on": said["ran_on"], **row})
            print(name, c["name"], setting, "agreement", row["agreement"], "official run to run", row.get("official_run_to_run"), flush=True)
    return {"rows": rows, "official": a, "official_again": b if twice else None}


def big_times(args, model, scans, work):
    """Isoline on the same scan twice in a process, energy of the process."""
    images = work / "twice"
    images.mkdir()
    scan = next((scans / "imagesTs").glob("*.nii.gz")).resolve()
    for k in (1, 2):
        (images / f"scan{k}_0000.nii.gz").symlink_to(scan)
    rows = []
    for step, tta in (("0.5", True), ("0.75", False)):
        meter = work / "meter.json"
        said = run_isoline(args, model, images, work / f"twice-{step}", step, tta, meter)
        gpu = next((d for d in json.loads(meter.read_text())["devices"] if d["kind"] == "gpu"), {})
        rows.append({"step": float(step), "tta": tta, "ran_on": said["ran_on"], "energy_j_process": gpu.get("energy_gross_j", {}).get("value"),
                     "peak_vram_bytes": gpu.get("peak_process_vram_bytes", {}).get("value"),
                     "cases": [{k: v for k, v in c.items() if k not in ("images", "output")} for c in said["cases"]]})
        print("isoline", step, tta, [c["total_s"] for c in said["cases"]], flush=True)
    return rows


def bench_patches(program):
    rows = []
    for batch in (1, 4):
        done = subprocess.run([str(program), "fp16", "20", "128", str(batch), "fold"], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{program}: {done.stderr[-1000:]}")
        said = json.loads(done.stdout.strip().splitlines()[-1])
        rows.append({"batch": batch, "ms_per_patch": said["graph_ms"] / batch})
    return rows


# Scans around real label maps.

def make_scans(args):
    sys.path.insert(0, str(args.phantom_code))
    import nibabel
    import numpy
    import torch
    from phantom import synth_ct
    for sub in ("imagesTs", "labelsTs"):
        (args.scans_out / sub).mkdir(parents=True, exist_ok=True)
    for path in args.kits.split(","):
        # KiTS stores its arrays [z, y, x] in the file's own order.
        stored = nibabel.load(path)
        labels, spacing = numpy.asarray(stored.dataobj).astype(numpy.uint8), [float(v) for v in stored.header.get_zooms()]
        if args.resized:
            shape, mm = args.resized.split(":")
            shape, spacing = [int(v) for v in shape.split(",")], [float(v) for v in mm.split(",")]
            labels = labels[numpy.ix_(*[((numpy.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(shape, labels.shape)])]
        ct = synth_ct(torch.from_numpy(numpy.ascontiguousarray(labels)), spacing, 0, "cuda" if torch.cuda.is_available() else "cpu").cpu().numpy()
        if args.crop:
            size = [min(int(c), n) for c, n in zip(args.crop.split(","), labels.shape)]
            centre = [int(v.mean()) for v in numpy.nonzero(labels)]
            low = [min(max(0, c - s // 2), n - s) for c, s, n in zip(centre, size, labels.shape)]
            box = tuple(slice(a, a + s) for a, s in zip(low, size))
            labels, ct = labels[box], ct[box]
        name = pathlib.Path(path).name.removesuffix(".nii.gz")
        affine = numpy.diag([*spacing[::-1], 1.0])
        for sub, values, file in (("imagesTs", ct.astype(numpy.int16), f"{name}_0000.nii.gz"), ("labelsTs", labels, f"{name}.nii.gz")):
            nibabel.save(nibabel.Nifti1Image(numpy.ascontiguousarray(values.T), affine), args.scans_out / sub / file)
        print("made", name, labels.shape, spacing, flush=True)


def number(value, form):
    return "not available" if value is None else format(value, form)


def markdown(d):
    judged = [r for r in d["rows"]]
    out = ["# Official nnU-Net autocast fp16 and Isoline fp16 on one GPU", "",
           f"Date {d['date']}. Commit `{d['commit']}`. {d['gpu']}. Official: nnU-Net 2.8.1, torch {d['torch']}, cuDNN {d['cudnn']}. "
           "Written by `bench/cuda_parity.py`; do not edit.", "", "## Labels", "",
           "Step .5 with all mirrors unless said otherwise. Agreement: share of voxels of the scan with equal labels. Official's two runs are two processes.", "",
           "| suite | case | step, TTA | voxels | agreement with official | voxels that differ | official, run to run | differ | largest change of Dice | Dice between |",
           "|---|---|---|---|---|---|---|---|---|---|"]
    for r in judged:
        change = [s["change"] for s in r["dice"].values() if s["change"] is not None]
        between = [s["between"] for s in r["dice"].values() if s["between"] is not None]
        out.append(f"| {r['suite']} | {r['case']} | {r['step']}, {'yes' if r['tta'] else 'no'} | {r['voxels']} | {r['agreement']:.7f} | {r['differing_voxels']} | "
                   f"{number(r.get('official_run_to_run'), '.7f')} | {number(r.get('official_run_to_run_voxels'), 'd')} | "
                   f"{number(max(change, default=None), '.6f')} | {number(min(between, default=None), '.6f')} |")
    out += ["", f"Bars: agreement at least {d['bars']['agreement']}, change of Dice at most {d['bars']['dice_change']}: "
            + ("held by every row." if d["held"] else "**NOT held.**")]
    if d.get("big"):
        b = d["big"]
        out += ["", f"## Times, one scan of {b['shape'][0]}×{b['shape'][1]}×{b['shape'][2]}", "",
                "Official: array in memory to label array in memory. Isoline: file to file, second scan of a process (first in brackets). Energy: the GPU's "
                "counter, gross; Isoline's is the process with two scans and loading, halved.", "",
                "| step, TTA | system | preprocess s | network s | export s | total s | GPU kJ | ratio of totals |", "|---|---|---|---|---|---|---|---|"]
        for r in b["isoline"]:
            o = next(c for c in b["official"] if c["step"] == r["step"] and c["tta"] == r["tta"])
            c, s = r["cases"][-1], r["cases"][-1]["stages_s"]
            label = f"{r['step']}, {'yes' if r['tta'] else 'no'}"
            out.append(f"| {label} | official | {o['preprocess_s']:.1f} | {o['network_s']:.1f} | {o['export_s']:.1f} | {o['total_s']:.1f} | "
                       f"{number(o['energy_j'] / 1e3 if o['energy_j'] else None, '.2f')} | |")
            out.append(f"| {label} | Isoline | {s['preprocess']:.2f} | {s['network']:.2f} | {s['export']:.2f} | {c['total_s']:.2f} ({r['cases'][0]['total_s']:.2f}) | "
                       f"{number(r['energy_j_process'] / 2e3 if r['energy_j_process'] else None, '.2f')} | {o['total_s'] / c['total_s']:.1f} |")
        out += ["", "## One patch, ms", "", "| system | ms |", "|---|---|"]
        out += [f"| official, {k} | {v:.2f} |" for k, v in b["ms_per_patch"].items()]
        out += [f"| Isoline fp16, batch {r['batch']} | {r['ms_per_patch']:.2f} |" for r in b.get("isoline_patches", [])]
    return "\n".join(out) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--isoline", type=pathlib.Path)
    p.add_argument("--bench", type=pathlib.Path, help="cuda_bench, for ms a patch")
    p.add_argument("--backend", default="cuda")
    p.add_argument("--precision", default="fp16")
    p.add_argument("--suite", action="append", default=[])
    p.add_argument("--big")
    p.add_argument("-o", "--out", type=pathlib.Path)
    p.add_argument("--commit", default="unknown")
    p.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--model", help=argparse.SUPPRESS)
    p.add_argument("--settings", default="0.5:tta", help=argparse.SUPPRESS)
    p.add_argument("--patch-times", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--keep", help=argparse.SUPPRESS)
    p.add_argument("--kits")
    p.add_argument("--phantom-code", type=pathlib.Path)
    p.add_argument("--scans", type=pathlib.Path)
    p.add_argument("--crop")
    p.add_argument("--as", dest="resized")
    args = p.parse_args()
    if args.worker:
        return official(args)
    if args.kits:
        args.scans_out = args.scans
        return make_scans(args)
    smi = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True) \
        if args.backend == "cuda" else None
    d = {"command": "bench/cuda_parity.py", "date": time.strftime("%Y-%m-%d"), "commit": args.commit, "gpu": smi.stdout.strip() if smi else "no GPU",
         "bars": {"agreement": 0.9999, "dice_change": 0.0005}, "rows": [], "official": []}
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for text in [*args.suite, *([args.big] if args.big else [])]:
            name, model, scans = text.split("=")
            model, scans, work = pathlib.Path(model), pathlib.Path(scans), pathlib.Path(folder, name)
            work.mkdir()
            big = text == args.big
            found = parity(args, name, model, scans, work, "0.5:tta,0.75:none" if big else "0.5:tta", big)
            d["rows"] += found["rows"]
            d.update(torch=found["official"]["torch"], cudnn=found["official"]["cudnn"])
            d["official"] += [{"suite": name, **c} for c in found["official"]["cases"]]
            if big:
                shape = list(read_nifti(next((scans / "labelsTs").glob("*.nii.gz")))[0].shape)
                d["big"] = {"shape": shape, "official": found["official"]["cases"], "ms_per_patch": found["official"]["ms_per_patch"],
                            "isoline": big_times(args, model, scans, work)}
                if args.bench:
                    d["big"]["isoline_patches"] = bench_patches(args.bench)
            d["held"] = all(r["agreement"] >= d["bars"]["agreement"] and max((s["change"] for s in r["dice"].values() if s["change"] is not None), default=0)
                            <= d["bars"]["dice_change"] for r in d["rows"])
            (args.out / "cuda-parity.json").write_text(json.dumps(d, indent=1) + "\n")
            (args.out / "cuda-parity.md").write_text(markdown(d))
    print("held" if d["held"] else "NOT held")
    return 0 if d["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
