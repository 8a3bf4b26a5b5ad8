#!/usr/bin/env python3
"""Runs official nnU-Net (nnunetv2, torch on the CPU) on the combinations of combos.py and keeps every stage it went through.

    make_goldens.py --set stored -o tests/goldens/parity      # the small ones that live in the repository
    make_goldens.py --set full   -o out/parity                # the larger ones, made on demand
        [--only NAME,NAME] [--shared DIR]                     # --shared: a folder with data/real_ct and models/

One folder per combination: model/ (an official results folder with random weights), images/, prev/ (cascade), and
  preprocessed.npy   float32 [c, z, y, x]     what the network is shown, before padding
  tiles.npy          float32 [tile, head, *patch]  network output of fold 0 per window, after mirroring (some combinations)
  logits_fold_K.npy  float16 [head, z, y, x]  sliding window result of fold K, padding removed (several folds only)
  logits.npy         float16 [head, z, y, x]  after averaging the folds
  labels.nii.gz      what the official export writes
  probabilities.npz  what --save_probabilities writes (some combinations)
  close_voxels.npy, close_margins.npy   flat indices (order of the label array) of voxels whose resampled logits are within
                     CLOSE of a tie (softmax: best minus second; regions: smallest |logit|), and that distance, float32
  manifest.json      how it was made, and a sha256 for each file
The numbers depend on the library versions in requirements.txt; they are recorded in the manifest.
"""
import argparse
import gzip
import hashlib
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "/nonexistent")
warnings.filterwarnings("ignore")

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parent))
import combos as table

from importlib.metadata import version
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

CLOSE = 0.01
CASE = "case"


# ---------------------------------------------------------------- scans
def phantom(shape, spacing, rng, kind):
    """Piecewise smooth organs in a body with noise, float64 [z, y, x], and a label map 0..3 that goes with it."""
    grid = np.meshgrid(*[(np.arange(n) + 0.5) / n * 2 - 1 for n in shape], indexing="ij")
    body = sum((g / 0.95) ** 2 for g in grid) < 1.6
    smooth = gaussian_filter(rng.normal(size=shape), [max(1.0, 4 / s) for s in spacing])
    smooth /= smooth.std()
    image = np.where(body, 30 + 15 * smooth, -900.0)
    labels = np.zeros(shape, np.uint8)
    for i in range(9):
        centre, radius = rng.uniform(-0.7, 0.7, 3), rng.uniform(0.15, 0.45, 3)
        inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius)) < 1
        image[inside] += rng.uniform(-60, 120)
        labels[inside] = i % 3 + 1
    image += rng.normal(0, 12, shape)
    if kind == "mr":
        image = np.clip((image + 900) * 0.23, 5, 250)
    elif kind == "small":
        image = (image + 900) / 1200
    return image, labels


def affine_of(kind, spacing, rng):
    """RAS voxel-to-world of a file whose array is read as z, y, x with `spacing` z, y, x."""
    scale = np.diag([spacing[2], spacing[1], spacing[0]])
    rotation = np.eye(3)
    if kind == "plain":
        rotation = np.diag([-1.0, -1.0, 1.0])
    elif kind == "flips":
        rotation = np.diag([1.0, -1.0, -1.0])
    elif kind == "permuted":
        rotation = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    elif kind == "sheared":
        a, b = 0.3, -0.2
        rz = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        rx = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        shear = np.eye(3)
        shear[0, 1] = 0.05
        rotation = rz @ rx @ shear
    out = np.eye(4)
    out[:3, :3] = rotation @ scale
    out[:3, 3] = np.round(rng.uniform(-150, 150, 3), 2)
    return out


def write_scan(path, array, dtype, affine, spacing, flat=False):
    """array [z, y, x] -> NIfTI. int16_scaled stores round(v / 0.5) with slope 0.5 and intercept -3.
    flat: a 2-D file (dim[0] = 2) from an array of one slice."""
    data = array.transpose(2, 1, 0)
    if dtype == "int16_scaled":
        data = np.round((data + 3) / 0.5).astype(np.int16)
    elif np.issubdtype(np.dtype(dtype), np.integer):
        info = np.iinfo(dtype)
        data = np.clip(np.round(data), info.min, info.max).astype(dtype)
    else:
        data = data.astype(dtype)
    if data.ndim == 3 and flat:
        data = data[:, :, 0]
    image = nib.Nifti1Image(data, affine)
    gram = affine[:3, :3].T @ affine[:3, :3]
    orthogonal = np.allclose(gram, np.diag(np.diag(gram)), atol=1e-6)
    image.set_sform(affine, 1)
    image.set_qform(affine if orthogonal else None, 1 if orthogonal else 0)
    image.header.set_zooms([spacing[2], spacing[1], spacing[0]][: data.ndim])
    image.header.set_xyzt_units("mm")
    header = image.header.copy()
    header["vox_offset"] = 352
    header["scl_slope"], header["scl_inter"] = (0.5, -3) if dtype == "int16_scaled" else (1, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    # nibabel would rescale on saving and stamp the time: write the stored numbers behind its header ourselves
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as f:
        f.write(header.binaryblock + b"\0\0\0\0" + data.tobytes(order="F"))


# ---------------------------------------------------------------- models
def plans_of(c):
    dims, stages = c["dims"], len(c["features"])
    conv, norm = f"torch.nn.modules.conv.Conv{dims}d", f"torch.nn.modules.instancenorm.InstanceNorm{dims}d"
    kwargs = {
        "n_stages": stages, "features_per_stage": list(c["features"]), "conv_op": conv,
        "kernel_sizes": [list(k) for k in c["kernels"]], "strides": [list(s) for s in c["strides"]],
        ("n_blocks_per_stage" if c["arch"] == "residual" else "n_conv_per_stage"): list(c["blocks"]),
        "n_conv_per_stage_decoder": list(c["decoder"]), "conv_bias": c["conv_bias"],
        "norm_op": norm, "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
        "nonlin": c["nonlin"], "nonlin_kwargs": {"inplace": True},
    }
    name = {"plain": "unet.PlainConvUNet", "residual": "unet.ResidualEncoderUNet"}[c["arch"]]
    fn = {"default": "resample_data_or_seg_to_shape", "torch": "resample_torch_fornnunet", "none": "no_resampling_hack"}[c["resample"]]

    def resampling(is_seg, order):
        return {"default": {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None},
                "torch": {"is_seg": is_seg, "force_separate_z": None, "memefficient_seg_resampling": False}, "none": {}}[c["resample"]]

    configuration_name = ("2d" if dims == 2 else "3d_cascade_fullres" if c["cascade"] else "3d_fullres")
    configuration = {
        "data_identifier": f"nnUNetPlans_{configuration_name}", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": list(c["patch"]), "median_image_size_in_voxels": [float(s) for s in c["shape"]][-dims:],
        "spacing": list(c["target"]), "normalization_schemes": list(c["normalization"]), "use_mask_for_norm": list(c["mask_for_norm"]),
        "resampling_fn_data": fn, "resampling_fn_data_kwargs": resampling(False, c["data_order"]),
        "resampling_fn_seg": fn, "resampling_fn_seg_kwargs": resampling(True, 1),
        "resampling_fn_probabilities": fn, "resampling_fn_probabilities_kwargs": resampling(False, 1),
    }
    if c["old_plans"]:
        # the format before the `architecture` key
        configuration.update({
            "UNet_class_name": "PlainConvUNet" if c["arch"] == "plain" else "ResidualEncoderUNet", "UNet_base_num_features": c["features"][0],
            "n_conv_per_stage_encoder": list(c["blocks"]), "n_conv_per_stage_decoder": list(c["decoder"]),
            "num_pool_per_axis": [stages - 1] * dims, "pool_op_kernel_sizes": [list(s) for s in c["strides"]],
            "conv_kernel_sizes": [list(k) for k in c["kernels"]], "unet_max_num_features": c["features"][-1]})
    else:
        configuration["architecture"] = {"network_class_name": f"dynamic_network_architectures.architectures.{name}", "arch_kwargs": kwargs,
                                         "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}
    configuration["batch_dice"] = False
    configurations = {configuration_name: configuration}
    if c["inherits"]:
        child = {"inherits_from": configuration_name, "patch_size": configuration.pop("patch_size"), "spacing": configuration["spacing"]}
        configuration["patch_size"] = [32] * dims
        configuration["spacing"] = [9.0] * dims
        configurations["3d_fullres_small"] = {"inherits_from": "3d_fullres_mid", "batch_size": 3}
        configurations["3d_fullres_mid"] = child
        configuration_name = "3d_fullres_small"
    if c["cascade"]:
        low = json.loads(json.dumps(configuration))
        low["data_identifier"], low["next_stage"] = "nnUNetPlans_3d_lowres", "3d_cascade_fullres"
        low["spacing"] = [2 * s for s in c["target"]]
        configurations = {"3d_lowres": low, "3d_fullres": configuration,
                          "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}}
    backward = [int(i) for i in np.argsort(c["transpose"])]
    return configuration_name, {
        "dataset_name": "Dataset999_Parity", "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [float(c["spacing"][i]) for i in c["transpose"]],
        "original_median_shape_after_transp": [int(c["shape"][i]) for i in c["transpose"]],
        "image_reader_writer": c["reader"], "transpose_forward": list(c["transpose"]), "transpose_backward": backward,
        "configurations": configurations, "experiment_planner_used": "ExperimentPlanner", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(i): {"max": 900.0, "mean": 54.31 + i, "median": 50.0, "min": -1000.0, "percentile_00_5": -61.7, "percentile_99_5": 187.3, "std": 43.21}
            for i in range(len(c["channels"]))},
    }


def dataset_of(c):
    out = {"channel_names": {str(i): n for i, n in enumerate(c["channels"])}, "labels": c["labels"], "numTraining": 1, "file_ending": ".nii.gz",
           "name": "Parity"}
    if c["regions_class_order"]:
        out["regions_class_order"] = c["regions_class_order"]
    return out


def random_weights(network, sample, generator, regions):
    """Weights that leave no op idle, and a head scaled so that every channel of `sample`'s logits has deviation 3."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)):
                fan = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(module, (torch.nn.InstanceNorm2d, torch.nn.InstanceNorm3d)):
                module.weight.uniform_(0.6, 1.4, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
        head = network.decoder.seg_layers[-1]
        network.decoder.deep_supervision = False
        out = network(sample)
        network.decoder.deep_supervision = True
        axes = [0] + list(range(2, out.ndim))
        mean, std = out.mean(axes), out.std(axes)
        scale = 3 / std
        head.weight *= scale.view(-1, *[1] * (head.weight.ndim - 1))
        head.bias.copy_((head.bias - mean) * scale - (0.7 if regions else 0.0))


def save_checkpoint(network, path, configuration, plans, dataset, fold, mirror_axes, momentum):
    """The dictionary nnUNetTrainer.save_checkpoint writes, down to the odd types it carries."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    if momentum:
        for p in network.parameters():
            p.grad = torch.full_like(p, 1e-4)
        state = {k: v.clone() for k, v in network.state_dict().items()}
        optimizer.step()
        network.load_state_dict(state)
    dice = [np.float64(0.5 + 0.01 * i) for i in range(2)]
    checkpoint = {
        "network_weights": network.state_dict(), "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 12},
        "logging": {"mean_fg_dice": list(dice), "ema_fg_dice": list(dice), "dice_per_class_or_region": [list(dice), list(dice)],
                    "train_losses": [np.float32(0.1), np.float32(-0.2)], "val_losses": [np.float64(0.1), np.float64(-0.2)], "lrs": [0.01, 0.0099],
                    "epoch_start_timestamps": [1.7e9, 1.7e9 + 60], "epoch_end_timestamps": [1.7e9 + 59, 1.7e9 + 120]},
        "_best_ema": dice[-1], "current_epoch": 2,
        "init_args": {"plans": plans, "configuration": configuration, "fold": fold, "dataset_json": dataset, "device": torch.device("cuda")},
        "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": mirror_axes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)


# ---------------------------------------------------------------- stages
class Recorder(nnUNetPredictor):
    """The official predictor; keeps what the network gave per window and what the sliding window gave per fold."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tiles, self.fold_logits = [], []

    def _internal_maybe_mirror_and_predict(self, x):
        out = super()._internal_maybe_mirror_and_predict(x)
        if not self.fold_logits:  # fold 0 only
            self.tiles.append(out[0].clone().numpy())
        return out

    def predict_sliding_window_return_logits(self, input_image):
        out = super().predict_sliding_window_return_logits(input_image)
        self.fold_logits.append(out.clone().numpy())
        return out


def preprocess(predictor, images, prev):
    plans, configuration, dataset = predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    data, seg, properties = configuration.preprocessor_class(verbose=False).run_case(images, prev, plans, configuration, dataset)
    if prev is not None:
        onehot = convert_labelmap_to_one_hot(seg[0], plans.get_label_manager(dataset).foreground_labels, data.dtype)
        data = np.vstack((data, onehot))
    return data, properties


def closeness(predictor, logits, properties):
    """Distance to a tie in the resampled logits, float32 in the order of the label array; +inf outside the crop."""
    configuration, plans, manager = predictor.configuration_manager, predictor.plans_manager, predictor.label_manager
    original = [properties["spacing"][i] for i in plans.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    current = configuration.spacing if len(configuration.spacing) == len(shape) else [original[0], *configuration.spacing]
    resampled = np.asarray(configuration.resampling_fn_probabilities(logits, shape, current, original)).astype(np.float32)
    if manager.has_regions:
        margin = np.abs(resampled).min(0)
    else:
        top = np.sort(resampled, 0)
        margin = top[-1] - top[-2]
    out = np.full(properties["shape_before_cropping"], np.inf, np.float32)
    out[tuple(slice(*b) for b in properties["bbox_used_for_cropping"])] = margin
    return np.ascontiguousarray(out.transpose(plans.transpose_backward))


def write_npy(path, array):
    np.save(path, np.ascontiguousarray(array))


def build_model(c, folder):
    configuration_name, plans = plans_of(c)
    dataset = dataset_of(c)
    model = folder / "model"
    model.mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(plans, indent=1) + "\n")
    (model / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n")
    manager = PlansManager(json.loads(json.dumps(plans)))
    configuration = manager.get_configuration(configuration_name)
    inputs = determine_num_input_channels(manager, configuration, dataset)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    return configuration_name, plans, dataset, manager, configuration, inputs, heads


def run_combo(c, out_root):
    folder = out_root / c["name"]
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(c["seed"] * 1000 + sum(map(ord, c["name"])))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))

    # scans
    affine, images = affine_of(c["affine"], c["spacing"], rng), []
    base, labels = phantom(c["shape"], c["spacing"], rng, c["image"])
    for i in range(len(c["channels"])):
        scan = base if i == 0 else phantom(c["shape"], c["spacing"], np.random.default_rng(c["seed"] + 17 * i), c["image"])[0] * 0.5 + base * 0.5
        if c["zero_border"]:
            inner = np.zeros(c["shape"], bool)
            inner[tuple(slice(a, n - b) for (a, b), n in zip(c["zero_border"], c["shape"]))] = True
            centre = [n // 2 for n in c["shape"]]
            inner[tuple(slice(m - 2, m + 2) for m in centre)] = False  # a hole that filling closes again
            corner = tuple(slice(a, a + 3) for a, _ in c["zero_border"])
            inner[corner] = False                                     # outside the mask, inside the box
            scan = np.where(inner, scan, 0)
        path = folder / "images" / f"{CASE}_{i:04d}.nii.gz"
        write_scan(path, scan, c["dtype"], affine, c["spacing"], c["flat"])
        images.append(str(path))
    prev = None
    if c["cascade"]:
        prev = folder / "prev" / f"{CASE}.nii.gz"
        write_scan(prev, np.minimum(labels, max(c["labels"].values())), "uint8", affine, c["spacing"])

    # model
    configuration_name, plans, dataset, manager, configuration, inputs, heads = build_model(c, folder)
    trial = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    trial.plans_manager, trial.configuration_manager, trial.dataset_json = manager, configuration, dataset
    data, _ = preprocess(trial, images, None if prev is None else str(prev))
    patch = configuration.patch_size
    window = torch.zeros((1, inputs, *patch))
    block = data[(slice(None),) + ((data.shape[1] // 2,) if c["dims"] == 2 else ())]
    block = block[(slice(None),) + tuple(slice(max(0, (n - p) // 2), max(0, (n - p) // 2) + p) for n, p in zip(block.shape[1:], patch))]
    window[(0, slice(None)) + tuple(slice(0, n) for n in block.shape[1:])] = torch.from_numpy(np.ascontiguousarray(block))
    for fold in c["folds"]:
        network = nnUNetTrainer.build_network_architecture(manager, configuration, inputs, heads, True)
        random_weights(network, window, generator, manager.get_label_manager(dataset).has_regions)
        save_checkpoint(network, folder / "model" / f"fold_{fold}" / c["checkpoint"], configuration_name, plans, dataset, fold, c["mirror_axes"], c["momentum"])
    return finish(c, folder, folder / "model", images, prev)


def finish(c, folder, model, images, prev, model_note=None):
    """Every official stage on files that already lie there; writes arrays and manifest."""
    compute_gaussian.cache_clear()
    predictor = Recorder(tile_step_size=c["step"], use_gaussian=True, use_mirroring=c["tta"], device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), tuple(c["folds"]), c["checkpoint"])
    data, properties = preprocess(predictor, images, None if prev is None else str(prev))
    write_npy(folder / "preprocessed.npy", data.astype(np.float32))
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu().numpy()
    write_npy(folder / "logits.npy", logits)
    if len(c["folds"]) > 1:
        for k, fold in zip(c["folds"], predictor.fold_logits):
            write_npy(folder / f"logits_fold_{k}.npy", fold)
    count = len(predictor.tiles)
    if c["keep_tiles"]:
        write_npy(folder / "tiles.npy", np.stack(predictor.tiles).astype(np.float32))
    work = folder / "export"
    work.mkdir()
    export_prediction_from_logits(logits.copy(), properties, predictor.configuration_manager, predictor.plans_manager, predictor.dataset_json,
                                  str(work / CASE), c["save_probabilities"])
    shutil.move(work / f"{CASE}.nii.gz", folder / "labels.nii.gz")
    if c["save_probabilities"]:
        shutil.move(work / f"{CASE}.npz", folder / "probabilities.npz")
    shutil.rmtree(work)
    margin = closeness(predictor, logits.copy(), properties)
    close = np.flatnonzero(margin.ravel() < CLOSE)
    write_npy(folder / "close_voxels.npy", close.astype(np.int64))
    write_npy(folder / "close_margins.npy", margin.ravel()[close])
    written = np.asarray(nib.load(folder / "labels.nii.gz").dataobj)
    values, counts = np.unique(written, return_counts=True)
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    manifest = {
        "name": c["name"], "tests": c["features_tested"], "model": "model" if model_note is None else model_note, "checkpoint": c["checkpoint"],
        "folds": list(c["folds"]), "images": [os.path.relpath(i, folder) for i in images], "prev": None if prev is None else os.path.relpath(prev, folder),
        "prev_dir": None if prev is None else "prev", "step": c["step"], "tta": c["tta"], "mirror_axes": list(predictor.allowed_mirroring_axes or []),
        "save_probabilities": c["save_probabilities"], "dims": c["dims"], "preprocessed_shape": list(data.shape), "heads": int(logits.shape[0]),
        "windows": count, "has_regions": bool(predictor.label_manager.has_regions),
        "has_tiles": bool(c["keep_tiles"]), "output_voxels": int(written.size), "label_counts": {str(int(v)): int(n) for v, n in zip(values, counts)},
        "logit_max_abs": float(np.abs(logits.astype(np.float32)).max()), "close_threshold": CLOSE,
        "crop": [[int(v) for v in b] for b in properties["bbox_used_for_cropping"]],
        "tolerances": {"preprocessed_max_abs": 1e-5, "accumulate": "bit-identical", "export": "bit-identical", "end_to_end_fraction": 1e-5, "end_to_end_gap": CLOSE},
        "versions": {p: version(p) for p in ("nnunetv2", "torch", "dynamic_network_architectures", "acvl_utils", "batchgenerators", "numpy", "scipy", "scikit-image", "SimpleITK", "nibabel")},
        "sha256": {f: hashlib.sha256((folder / f).read_bytes()).hexdigest() for f in files},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    print(f"{c['name']:26s} prep {tuple(data.shape)} heads {logits.shape[0]} windows {count} labels {manifest['label_counts']} "
          f"|logit| {manifest['logit_max_abs']:.1f} close {len(close)}/{written.size} {size / 1e3:.0f} kB", flush=True)
    return manifest


def real_ct(shared, out_root):
    """Real scans that are not part of the repository: with a small random model, and a crop with the full-size trained model."""
    done = []
    source = shared / "data" / "real_ct" / "example_ct_sm.nii.gz"
    if not source.exists():
        print(f"no real CT under {shared}: skipped")
        return done
    base = dict(name="real_ct_small_model", features_tested=["real CT", "regions"], labels=table.REGIONS["labels"],
                regions_class_order=table.REGIONS["regions_class_order"], target=(1.5, 1.5, 1.5), patch=(32, 32, 32), features=(8, 16, 24), tta=False, stored=False)
    c = table.resolved(base)
    image = nib.load(source)
    c["shape"], c["spacing"] = tuple(image.shape[::-1]), tuple(float(z) for z in image.header.get_zooms()[::-1])
    folder = out_root / c["name"]
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    path = folder / "images" / f"{CASE}_0000.nii.gz"
    shutil.copy(source, path)
    path.chmod(0o644)
    configuration_name, plans, dataset, manager, configuration, inputs, heads = build_model(c, folder)
    network = nnUNetTrainer.build_network_architecture(manager, configuration, inputs, heads, True)
    generator = torch.Generator().manual_seed(5)
    random_weights(network, torch.randn((1, inputs, *c["patch"]), generator=generator), generator, True)
    save_checkpoint(network, folder / "model" / "fold_0" / c["checkpoint"], configuration_name, plans, dataset, 0, (0, 1, 2), False)
    done.append(finish(c, folder, folder / "model", [str(path)], None))

    full = shared / "models" / "kits_phantom_full"
    if (full / "plans.json").exists():
        c = table.resolved(dict(name="real_ct_full_model", features_tested=["real CT", "trained 32...320 network", "crop of two windows"], tta=False, step=1.0, stored=False,
                                checkpoint=next((full / "fold_0").glob("*.pth")).name))
        folder = out_root / c["name"]
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "images").mkdir(parents=True)
        path = folder / "images" / f"{CASE}_0000.nii.gz"
        big = nib.load(shared / "data" / "real_ct" / "example_ct.nii.gz")
        spacing = big.header.get_zooms()
        size = [min(n, int(mm / s)) for n, s, mm in zip(big.shape, spacing, (98, 98, 112))]  # x, y: inside one patch; z: two windows
        start = [(n - s) // 2 for n, s in zip(big.shape, size)]
        nib.save(big.slicer[tuple(slice(a, a + s) for a, s in zip(start, size))], path)
        done.append(finish(c, folder, full, [str(path)], None, model_note=os.path.relpath(full, folder)))
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--set", choices=("stored", "full"), required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[3] / "shared")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    only = set(filter(None, args.only.split(",")))
    args.output.mkdir(parents=True, exist_ok=True)
    for combo in table.COMBOS:
        c = table.resolved(combo)
        if (only and c["name"] not in only) or (args.set == "stored" and not c["stored"]):
            continue
        run_combo(table.enlarge(c) if args.set == "full" else c, args.output)
    if args.set == "full" and (not only or "real_ct" in only):
        real_ct(args.shared, args.output)


if __name__ == "__main__":
    main()
