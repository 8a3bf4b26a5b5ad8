#!/usr/bin/env python3
"""Trains the bundled model models/kidney_phantom on phantoms alone and measures it on held-out ones.

Needs a CUDA device (a CPU works with tiny settings), torch, numpy, scipy and the official network definition
`dynamic_network_architectures`; phantoms come from the tool `phantom_dump` (ninja phantom_dump). Writes an
official nnU-Net results folder (plans.json, dataset.json, fold_0/checkpoint_final.pth with binary16 weights) and
train_log.json.

  python3 tools/train/train_kidney_phantom.py --phantom-tool build-release/tools/train/phantom_dump --out DIR

Data, preprocessing and inference follow nnU-Net 2.8.1: CT normalisation, cubic resampling with skimage's
conventions, Gaussian-weighted sliding window, mirroring. Training is our own loop: what is fixed is wall time.
"""
import argparse
import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import random
import subprocess
import time

import numpy as np
import scipy.ndimage as ndi
import torch
import torch.nn.functional as F

SPACING = (2.5, 2.0, 2.0)  # [z, y, x] mm the network sees
PATCH = (64, 96, 96)
FEATURES = [16, 32, 64, 128, 160]
CONVS = [1, 2, 2, 2, 2]          # encoder, from full resolution down
CONVS_DECODER = [2, 2, 1, 1]     # decoder, from the bottom up
REGIONS = {"kidney": (1, 2, 3), "masses": (2, 3), "tumor": (2,)}
REGIONS_CLASS_ORDER = [1, 3, 2]
DEMO = ((96, 256, 256), (2.5, 1.3, 1.3))
# (shape, spacing, share): what training phantoms look like
TRAIN_SPECS = [(*DEMO, 0.70), ((80, 224, 224), (3.0, 1.5, 1.5), 0.15), ((200, 400, 400), (1.25, 0.83, 0.83), 0.15)]
FIRST_TRAIN_SEED = 100_000  # held-out phantoms are seeds 1, 2, ...

clock = time.monotonic
started = clock()


def say(*words):
    print(f"[{clock() - started:6.1f}s]", *words, flush=True)


# ---------------------------------------------------------------- phantoms

def read_dump(path):
    raw = path.read_bytes()
    shape = np.frombuffer(raw, "<i4", 3)
    spacing = np.frombuffer(raw, "<f8", 3, 12)
    n = int(np.prod(shape.astype(np.int64)))
    ct = np.frombuffer(raw, "<i2", n, 36).reshape(shape)
    labels = np.frombuffer(raw, "u1", n, 36 + 2 * n).reshape(shape)
    return ct.copy(), labels.copy(), tuple(spacing)


def dump(tool, folder, shape, spacing, first, count):
    subprocess.run([tool, str(folder), *map(str, shape), *map(repr, spacing), str(first), str(count), "1"], check=True)
    return [folder / f"{seed}.bin" for seed in range(first, first + count)]


# ---------------------------------------------------------------- nnU-Net's resampling as one matrix an axis

def axis_matrix(n, m, order, device, cache={}):
    key = (n, m, order, str(device))
    if key not in cache:
        matrix = np.eye(n) if n == m else ndi.zoom(np.eye(n), (m / n, 1), order=order, mode="nearest", grid_mode=True)
        cache[key] = torch.from_numpy(matrix).float().to(device)
    return cache[key]


def resize(volume, new_shape, order):
    """volume [..., z, y, x] float on the device -> resampled, clipped to the input's range for order 3."""
    for axis in (-3, -2, -1):
        n, m = volume.shape[axis], new_shape[axis]
        if n != m:
            moved = volume.movedim(axis, -1) @ axis_matrix(n, m, order, volume.device).T
            volume = moved.movedim(-1, axis)
    return volume


def resampled_shape(shape, old, new):
    return tuple(int(round(n * o / s)) for n, o, s in zip(shape, old, new))


def to_network_grid(ct, labels, spacing, device):
    """HU and labels on the network's grid, int16 and uint8, on the device."""
    shape = resampled_shape(ct.shape, spacing, SPACING)
    volume = torch.from_numpy(ct).to(device).float()
    out = resize(volume, shape, 3).clamp_(volume.min().item(), volume.max().item()).round_().to(torch.int16)
    seg = torch.from_numpy(labels).to(device)
    new = torch.zeros(shape, dtype=torch.uint8, device=device)
    for value in (1, 2, 3):
        new[resize((seg == value).float(), shape, 1) >= 0.5] = value
    return out, new


def make_cases(tool, folder, shape, spacing, first, count, device):
    cases = []
    for path in dump(tool, folder, shape, spacing, first, count):
        cases.append(to_network_grid(*read_dump(path), device))
        path.unlink()
    return cases


# ---------------------------------------------------------------- data on the device

class Cases:
    def __init__(self, device):
        self.device, self.ct, self.labels, self.places = device, [], [], []

    def add(self, ct, labels):
        self.ct.append(ct)
        self.labels.append(labels)
        places = {}
        for value in (1, 2, 3):
            where = (labels == value).nonzero()
            if len(where):
                places[value] = where[torch.randint(len(where), (400,), device=self.device)].cpu().numpy()
        self.places.append(places)

    def fingerprint(self):
        values = torch.cat([c[s > 0][::7] for c, s in zip(self.ct, self.labels)]).cpu().numpy().astype(np.float64)
        return {"max": values.max(), "mean": values.mean(), "median": float(np.median(values)), "min": values.min(),
                "percentile_00_5": float(np.percentile(values, 0.5)),
                "percentile_99_5": float(np.percentile(values, 99.5)), "std": values.std()}

    def normalise(self, p):
        self.ct = [normalised(c, p).half() for c in self.ct]


def normalised(ct, p):
    return (ct.float().clamp(p["percentile_00_5"], p["percentile_99_5"]) - p["mean"]) / max(p["std"], 1e-8)


def sample_batch(cases, batch, rng):
    """[batch, 1, *PATCH] inputs and [batch, 3, *PATCH] region targets with mirroring, scaling and rotation."""
    device = cases.device
    images, segs = [], []
    patch = np.array(PATCH, float)
    for _ in range(batch):
        i = rng.randrange(len(cases.ct))
        volume, labels = cases.ct[i], cases.labels[i]
        shape = np.array(volume.shape, float)
        if rng.random() < 0.6 and cases.places[i]:
            value = rng.choice(sorted(cases.places[i]))
            spot = cases.places[i][value][rng.randrange(400)].astype(float)
            centre = spot + np.array([rng.uniform(-0.3, 0.3) for _ in range(3)]) * patch
        else:
            centre = np.array([rng.uniform(0, n) for n in shape])
        lo = np.minimum(patch / 2, shape / 2)
        centre = np.round(np.clip(centre, lo, np.maximum(shape - patch / 2, shape / 2)))
        # Rows: z, y, x in voxels of the case per voxel of the patch, through millimetres so that angles hold.
        matrix = np.diag([1.0 if rng.random() < 0.5 else -1.0 for _ in range(3)])
        if rng.random() < 0.35:
            matrix = matrix * rng.uniform(0.8, 1.25)
        if rng.random() < 0.35:
            for a, b in ((0, 1), (0, 2), (1, 2)):
                angle = rng.uniform(-0.3, 0.3)
                turn = np.eye(3)
                turn[a, a] = turn[b, b] = np.cos(angle)
                turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
                mm = np.diag(SPACING)
                matrix = np.linalg.inv(mm) @ turn @ mm @ matrix
        # grid_sample wants x, y, z in [-1, 1], align_corners=False: voxel v is at (2 v + 1) / n - 1.
        theta = np.zeros((3, 4))
        theta[:, :3] = matrix * patch[None, :] / shape[:, None]
        theta[:, 3] = 2 * centre / shape - 1
        theta = theta[::-1].copy()
        theta[:, :3] = theta[:, 2::-1]
        grid = F.affine_grid(torch.from_numpy(theta)[None].float().to(device, non_blocking=True), (1, 1, *PATCH),
                             align_corners=False)
        image = F.grid_sample(volume[None, None].float(), grid, mode="bilinear", align_corners=False)
        seg = F.grid_sample(labels[None, None].float(), grid, mode="nearest", align_corners=False)
        if rng.random() < 0.3:
            image = image * rng.uniform(0.8, 1.25)
        if rng.random() < 0.3:
            image = image + rng.uniform(-0.25, 0.25)
        if rng.random() < 0.25:
            image = image + torch.randn_like(image) * rng.uniform(0, 0.25)
        if rng.random() < 0.15:
            image = F.avg_pool3d(F.pad(image, (1,) * 6, mode="replicate"), 3, 1) * 0.5 + image * 0.5
        if rng.random() < 0.2:
            low, high = image.amin(), image.amax()
            image = ((image - low) / (high - low + 1e-6)).pow(rng.uniform(0.75, 1.4)) * (high - low) + low
        images.append(image)
        segs.append(seg)
    seg = torch.cat(segs)
    target = torch.cat([torch.isin(seg, torch.tensor(r, device=device, dtype=seg.dtype)) for r in REGIONS.values()], 1)
    return torch.cat(images), target.float()


# ---------------------------------------------------------------- network

def arch_kwargs():
    n = len(FEATURES)
    return {"n_stages": n, "features_per_stage": FEATURES, "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * n, "strides": [[1, 1, 1]] + [[2, 2, 2]] * (n - 1),
            "n_conv_per_stage": CONVS, "n_conv_per_stage_decoder": CONVS_DECODER, "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}}


def build_network():
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    kwargs = arch_kwargs()
    kwargs.update(conv_op=torch.nn.Conv3d, norm_op=torch.nn.InstanceNorm3d, nonlin=torch.nn.LeakyReLU)
    net = PlainConvUNet(input_channels=1, num_classes=len(REGIONS), deep_supervision=True, **kwargs)
    net.apply(net.initialize)
    return net


def flops_per_patch(net):
    total = 0

    def hook(module, _, output):
        nonlocal total
        taps = int(np.prod(module.kernel_size)) if isinstance(module, torch.nn.Conv3d) else 1
        total += 2 * output.numel() * module.in_channels * taps
    handles = [m.register_forward_hook(hook) for m in net.modules()
               if isinstance(m, (torch.nn.Conv3d, torch.nn.ConvTranspose3d))]
    net.decoder.deep_supervision = False
    with torch.no_grad():
        net(torch.zeros(1, 1, *PATCH, device=next(net.parameters()).device))
    net.decoder.deep_supervision = True
    for h in handles:
        h.remove()
    return total


def region_loss(logits, target):
    p = torch.sigmoid(logits.float())
    dims = (0, 2, 3, 4)
    dice = (2 * (p * target).sum(dims) + 1) / (p.sum(dims) + target.sum(dims) + 1)
    return F.binary_cross_entropy_with_logits(logits.float(), target) + 1 - dice.mean()


def supervised_loss(outputs, target):
    weights = [1.0, 0.5, 0.25, 0.0]
    total = 0
    for w, out in zip(weights, outputs):
        if w:
            small = target if out.shape[2:] == target.shape[2:] else F.interpolate(target, out.shape[2:], mode="nearest")
            total = total + w * region_loss(out, small)
    return total / sum(weights)


# ---------------------------------------------------------------- inference as nnU-Net does it

def window_starts(n, p, step):
    count = int(np.ceil((n - p) / (p * step))) + 1 if n > p else 1
    return [int(np.round(i * (n - p) / (count - 1))) if count > 1 else 0 for i in range(count)]


def gaussian_window(device):
    w = np.zeros(PATCH)
    w[tuple(p // 2 for p in PATCH)] = 1
    w = ndi.gaussian_filter(w, [p / 8 for p in PATCH], 0, mode="constant", cval=0)
    w = np.maximum(w / w.max() * 10, 6e-8)
    return torch.from_numpy(w).float().to(device)


@torch.no_grad()
def predict_logits(net, image, step, mirror, autocast, gauss):
    """image [z, y, x] normalised -> logits [3, z, y, x]."""
    before = [max(p - n, 0) // 2 for n, p in zip(image.shape, PATCH)]
    after = [max(p - n, 0) - b for n, p, b in zip(image.shape, PATCH, before)]
    padded = F.pad(image, [v for b, a in zip(reversed(before), reversed(after)) for v in (b, a)])
    logits = torch.zeros((len(REGIONS), *padded.shape), device=image.device)
    weight = torch.zeros(padded.shape, device=image.device)
    sets = [c for k in range(4) for c in itertools.combinations((2, 3, 4), k)] if mirror else [()]
    windows = 0
    for corner in itertools.product(*(window_starts(n, p, step) for n, p in zip(padded.shape, PATCH))):
        box = tuple(slice(c, c + p) for c, p in zip(corner, PATCH))
        tile = padded[box][None, None]
        total = 0
        for axes in sets:
            with autocast():
                out = net(tile.flip(axes) if axes else tile)
            total = total + (out.flip(axes) if axes else out).float()
        logits[(slice(None), *box)] += total[0] / len(sets) * gauss
        weight[box] += gauss
        windows += 1
    logits /= weight
    crop = tuple(slice(b, b + n) for b, n in zip(before, image.shape))
    return logits[(slice(None), *crop)], windows


def paint(logits):
    labels = torch.zeros(logits.shape[1:], dtype=torch.uint8, device=logits.device)
    for channel, value in enumerate(REGIONS_CLASS_ORDER):
        labels[torch.sigmoid(logits[channel]) > 0.5] = value
    return labels


def dice_per_region(predicted, truth):
    """nan where both are empty (nnU-Net's convention)."""
    out = {}
    for name, values in REGIONS.items():
        v = torch.tensor(values, device=truth.device, dtype=truth.dtype)
        a, b = torch.isin(predicted, v), torch.isin(truth, v)
        size = int(a.sum()) + int(b.sum())
        out[name] = 2 * int((a & b).sum()) / size if size else float("nan")
    return out


def network_input(ct, spacing, prints, device):
    """As DefaultPreprocessor does it: normalise, then resample. Training clipped after resampling."""
    image = normalised(torch.from_numpy(ct).to(device), prints)
    low, high = image.min().item(), image.max().item()
    return resize(image, resampled_shape(ct.shape, spacing, SPACING), 3).clamp_(low, high)


def evaluate(net, cases, prints, settings, autocast, device):
    gauss = gaussian_window(device)
    results = {}
    net.eval()
    net.decoder.deep_supervision = False
    for name, step, mirror in settings:
        rows, t = [], clock()
        for seed, ct, labels, spacing in cases:
            image = network_input(ct, spacing, prints, device)
            logits, windows = predict_logits(net, image, step, mirror, autocast, gauss)
            predicted = paint(resize(logits, ct.shape, 1))
            rows.append({"seed": seed, "windows": windows,
                         **dice_per_region(predicted, torch.from_numpy(labels).to(device))})
        mean = {r: float(np.nanmean([row[r] for row in rows])) for r in REGIONS}
        results[name] = {"mean": mean, "cases": rows}
        say(f"{name:14s} windows {rows[0]['windows']:3d} ", {r: round(v, 4) for r, v in mean.items()},
            f"{(clock() - t) / len(rows):.2f} s a case")
    net.decoder.deep_supervision = True
    net.train()
    return results


# ---------------------------------------------------------------- results folder

def write_folder(out, net, prints, training_cases):
    (out / "fold_0").mkdir(parents=True, exist_ok=True)
    shape = [int(v) for v in resampled_shape(*DEMO, SPACING)]
    resampling = {"resampling_fn_data": "resample_data_or_seg_to_shape",
                  "resampling_fn_seg": "resample_data_or_seg_to_shape",
                  "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
                  "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
                  "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                  "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0,
                                                         "force_separate_z": None}}
    configuration = {"data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor",
                     "batch_size": 2, "patch_size": list(PATCH), "median_image_size_in_voxels": shape,
                     "spacing": list(SPACING), "normalization_schemes": ["CTNormalization"],
                     "use_mask_for_norm": [False], **resampling,
                     "architecture": {
                         "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                         "arch_kwargs": arch_kwargs(),
                         "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]},
                     "batch_dice": True}
    plans = {"dataset_name": "Dataset001_KidneyPhantom", "plans_name": "nnUNetPlans",
             "original_median_spacing_after_transp": list(DEMO[1]), "original_median_shape_after_transp": list(DEMO[0]),
             "image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
             "configurations": {"3d_fullres": configuration}, "experiment_planner_used": "ExperimentPlanner",
             "label_manager": "LabelManager",
             "foreground_intensity_properties_per_channel": {"0": {k: float(v) for k, v in prints.items()}}}
    dataset = {"name": "KidneyPhantom", "channel_names": {"0": "CT"},
               "labels": {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2},
               "regions_class_order": REGIONS_CLASS_ORDER, "numTraining": training_cases, "file_ending": ".nii.gz"}
    (out / "plans.json").write_text(json.dumps(plans, indent=1) + "\n")
    (out / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n")
    half = build_network()
    half.load_state_dict(net.state_dict())
    half.half()
    torch.save({"network_weights": half.state_dict(), "trainer_name": "nnUNetTrainer",
                "init_args": {"configuration": "3d_fullres", "fold": 0},
                "inference_allowed_mirroring_axes": (0, 1, 2), "current_epoch": 0},
               out / "fold_0" / "checkpoint_final.pth")


def measure_folder(folder, tool, scratch, held_out, device, amp, report_path):
    """Held-out Dice of a results folder on three kinds of scan."""
    plans = json.loads((folder / "plans.json").read_text())
    prints = plans["foreground_intensity_properties_per_channel"]["0"]
    checkpoint = torch.load(folder / "fold_0" / "checkpoint_final.pth", map_location="cpu", weights_only=True)
    net = build_network()
    net.load_state_dict(checkpoint["network_weights"])
    net.to(device)
    report = {}
    for name, (shape, spacing), count in (("demo", DEMO, held_out), ("thick", ((96, 256, 256), (3.0, 1.4, 1.4)), 8),
                                          ("large", ((266, 512, 512), (1.0, 0.824, 0.824)), 6)):
        cases = []
        for path in dump(tool, scratch, shape, spacing, 1, count):
            cases.append((int(path.stem), *read_dump(path)))
            path.unlink()
        say(name, shape, spacing, "seeds 1 to", count)
        settings = [("step .5 TTA", 0.5, True), ("step .5", 0.5, False), ("step .75 TTA", 0.75, True),
                    ("step .75", 0.75, False)]
        report[name] = evaluate(net, cases, prints, settings, contextlib.nullcontext, device)
        report[name + " bf16"] = evaluate(net, cases, prints, settings[:2], amp, device)
    report_path.write_text(json.dumps(report, indent=1) + "\n")


# ---------------------------------------------------------------- main

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantom-tool", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--scratch", type=pathlib.Path, default=pathlib.Path("/dev/shm/kidney_phantom"))
    parser.add_argument("--cases", type=int, default=1600)
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--until-s", type=float, default=500, help="training ends this long after the start")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--evaluate", type=pathlib.Path, help="measure this results folder instead of training")
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.type == "cuda"
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    say("device", torch.cuda.get_device_name() if cuda else "cpu", "torch", torch.__version__, "cpus", os.cpu_count())
    args.scratch.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)

    if args.evaluate:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        amp = (lambda: torch.autocast("cuda", torch.bfloat16)) if cuda else contextlib.nullcontext
        measure_folder(args.evaluate, args.phantom_tool, args.scratch, args.held_out, device, amp,
                       args.out / "evaluation.json")
        return

    # Phantoms: dumped by all cores, moved to the device as they come.
    cases, jobs, seed = Cases(device), [], FIRST_TRAIN_SEED
    torch.backends.cuda.matmul.allow_tf32 = False  # resampling in full float32
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        held_job = pool.submit(dump, args.phantom_tool, args.scratch, *DEMO, 1, args.held_out)
        for shape, spacing, share in TRAIN_SPECS:
            left = round(args.cases * share)
            while left > 0:
                count = min(4, left)
                jobs.append(pool.submit(make_cases, args.phantom_tool, args.scratch, shape, spacing, seed, count, device))
                seed, left = seed + count, left - count
        for job in jobs:  # in order, so that the same seeds give the same training set
            for case in job.result():
                cases.add(*case)
        held_out = []
        for path in held_job.result():
            held_out.append((int(path.stem), *read_dump(path)))
            path.unlink()
    prints = cases.fingerprint()
    cases.normalise(prints)
    say(len(cases.ct), "training phantoms; fingerprint", {k: round(float(v), 2) for k, v in prints.items()},
        "with tumour", sum(2 in p for p in cases.places), "with cyst", sum(3 in p for p in cases.places))
    torch.backends.cuda.matmul.allow_tf32 = True

    net = build_network().to(device)
    parameters = sum(p.numel() for p in net.parameters())
    flops = flops_per_patch(net)
    say(f"{parameters / 1e6:.2f} M parameters, {flops / 1e9:.1f} GFLOP a patch")
    amp = (lambda: torch.autocast("cuda", torch.bfloat16)) if cuda else contextlib.nullcontext
    exact = contextlib.nullcontext

    def one_step(model, optimiser):
        images, target = sample_batch(cases, args.batch, rng)
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last_3d)
        with amp():
            outputs = model(images)
        loss = supervised_loss(outputs, target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 12)
        optimiser.step()
        return loss.detach()

    # Which memory layout is quicker here?
    channels_last, speeds = False, {}
    if cuda:
        for layout in (False, True):
            channels_last = layout
            trial = build_network().to(device)
            if layout:
                trial = trial.to(memory_format=torch.channels_last_3d)
            optimiser = torch.optim.AdamW(trial.parameters(), lr=1e-4)
            for i in range(25):
                if i == 10:
                    torch.cuda.synchronize()
                    t = clock()
                one_step(trial, optimiser)
            torch.cuda.synchronize()
            speeds[layout] = (clock() - t) / 15
        channels_last = speeds[True] < speeds[False]
        say("seconds a step: contiguous", round(speeds[False], 4), "channels last", round(speeds[True], 4))
    if channels_last:
        net = net.to(memory_format=torch.channels_last_3d)

    optimiser = torch.optim.AdamW(net.parameters(), lr=args.learning_rate, weight_decay=2e-2, betas=(0.9, 0.99))
    weights = list(net.parameters())  # InstanceNorm keeps no other state
    average = [w.detach().clone() for w in weights]
    begin, until, step, running, history = clock(), started + args.until_s, 0, 0.0, []
    last_print = begin
    while clock() < until:
        progress = (clock() - begin) / max(until - begin, 1e-6)
        rate = args.learning_rate * min(1, (step + 1) / 200) * max(1 - progress, 0) ** 0.9
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = one_step(net, optimiser)
        step += 1
        keep = min(0.998, step / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1 - keep)
        if clock() - last_print > 15:
            last_print = clock()
            history.append({"step": step, "s": round(last_print - begin, 1), "loss": round(float(loss), 4)})
            say("step", step, "loss", history[-1]["loss"], "rate", f"{rate:.2e}")
    train_s = clock() - begin
    say("trained", step, "steps of", args.batch, f"in {train_s:.0f} s")

    with torch.no_grad():
        for w, a in zip(weights, average):
            w.copy_(a.half().float())  # measured as stored
    write_folder(args.out, net, prints, len(cases.ct))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    settings = [("step .5 TTA", 0.5, True), ("step .5", 0.5, False), ("step .75 TTA", 0.75, True),
                ("step .75", 0.75, False), ("step 1", 1.0, False)]
    report = {"settings": evaluate(net, held_out, prints, settings, exact, device)}
    if cuda:
        report["bf16"] = evaluate(net, held_out, prints, [("bf16 .5 TTA", 0.5, True), ("bf16 .5", 0.5, False)], amp,
                                  device)
    for row in report["settings"]["step .5 TTA"]["cases"]:
        say("seed", row["seed"], {r: round(row[r], 4) for r in REGIONS})
    report.update(parameters=parameters, flops_per_patch=flops, training_cases=len(cases.ct), steps=step,
                  batch=args.batch, train_s=round(train_s, 1), history=history, speeds=speeds,
                  device=torch.cuda.get_device_name() if cuda else "cpu", torch=torch.__version__,
                  peak_gpu_bytes=torch.cuda.max_memory_allocated() if cuda else 0, total_s=round(clock() - started, 1))
    (args.out / "train_log.json").write_text(json.dumps(report, indent=1) + "\n")
    say("done")


if __name__ == "__main__":
    main()
