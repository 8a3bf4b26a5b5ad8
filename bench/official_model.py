#!/usr/bin/env python3
"""Writes the results folder the benchmark runs on: the full 32...320 PlainConvUNet of official nnU-Net, 128^3 patch, 0.78125 mm,
regions kidney / masses / tumor, random weights (speed does not depend on them).

    official_model.py FOLDER                      the network as nnunetv2 builds it
    official_model.py FOLDER --shapes FILE        the same, and the shapes of its weights to FILE
    official_model.py FOLDER --from-shapes FILE   where nnunetv2 is not installed: weights of these shapes
"""
import argparse
import json
import os
from pathlib import Path

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "/nonexistent")

import torch

SPACING_MM = 0.78125
RESAMPLING = {"resampling_fn_data": 3, "resampling_fn_seg": 1, "resampling_fn_probabilities": 1}


def plans():
    stages = 6
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "patch_size": [128] * 3,
        "median_image_size_in_voxels": [400, 512, 512], "spacing": [SPACING_MM] * 3, "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages, "features_per_stage": [32, 64, 128, 256, 320, 320], "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * stages, "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1), "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True, "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True}},
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]},
        "batch_dice": False}
    for name, order in RESAMPLING.items():
        configuration[name] = "resample_data_or_seg_to_shape"
        configuration[name + "_kwargs"] = {"is_seg": name.endswith("seg"), "order": order, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset998_Bench", "plans_name": "nnUNetPlans", "original_median_spacing_after_transp": [3.0, SPACING_MM, SPACING_MM],
        "original_median_shape_after_transp": [100, 512, 512], "image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2], "configurations": {"3d_fullres": configuration}, "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {"max": 3071.0, "mean": 104.0, "median": 104.0, "min": -1024.0,
                                                              "percentile_00_5": -58.0, "percentile_99_5": 302.0, "std": 75.0}}}


def dataset():
    return {"channel_names": {"0": "CT"}, "labels": {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2},
            "regions_class_order": [1, 3, 2], "numTraining": 1, "file_ending": ".nii.gz", "name": "Bench"}


def official_weights():
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    manager = PlansManager(plans())
    return nnUNetTrainer.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 3, True).state_dict()


def random_weights(shapes):
    weights = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            fan_in = torch.Size(shape[1:]).numel()
            weights[name] = torch.randn(shape) * (2 / fan_in) ** 0.5
        else:
            weights[name] = torch.ones(shape) if name.endswith("norm.weight") else torch.zeros(shape)
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shapes", type=Path)
    parser.add_argument("--from-shapes", type=Path)
    args = parser.parse_args()
    folder = args.folder
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans(), indent=1) + "\n")
    (folder / "dataset.json").write_text(json.dumps(dataset(), indent=1) + "\n")
    torch.manual_seed(0)
    weights = random_weights(json.loads(args.from_shapes.read_text())) if args.from_shapes else official_weights()
    if args.shapes:
        args.shapes.write_text(json.dumps({k: list(v.shape) for k, v in weights.items()}))
    torch.save({"network_weights": weights, "init_args": {"plans": plans(), "configuration": "3d_fullres", "fold": 0, "dataset_json": dataset()},
                "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": (0, 1, 2), "current_epoch": 0, "_best_ema": None},
               folder / "fold_0" / "checkpoint_final.pth")


if __name__ == "__main__":
    main()
