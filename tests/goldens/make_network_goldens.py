"""Writes tests/goldens/network/: small results folders and what PyTorch computes with them.

Needs torch and dynamic_network_architectures (any environment with nnunetv2 2.8.1). Each folder holds plans.json,
dataset.json, fold_0/checkpoint_final.pth, input.f32 and output.f32 (float32, little endian, [channels, (z,) y, x] of
the patch in plans.json). Read by src/isoline/network/network_test.cpp, tolerance 2e-5 of the output's range.
"""
import copy
import json
import pathlib
import pydoc

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

OUT = pathlib.Path(__file__).parent / "network"
LEAKY = dict(nonlin="torch.nn.LeakyReLU", nonlin_kwargs={"inplace": True})
RELU = dict(nonlin="torch.nn.ReLU", nonlin_kwargs={"inplace": True})


def norm(dims, **kwargs):
    return dict(norm_op=f"torch.nn.modules.instancenorm.InstanceNorm{dims}d", norm_op_kwargs=kwargs)


AFFINE = dict(eps=1e-5, affine=True)
NO_NORM = dict(norm_op=None, norm_op_kwargs=None)
# dims, channels, labels, patch, class, arguments
CASES = {
    "plain3d": (3, 2, 3, (8, 12, 8), PlainConvUNet, dict(
        features_per_stage=[3, 4, 5], kernel_sizes=[[3, 3, 3]] * 3, strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        n_conv_per_stage=[2, 1, 2], n_conv_per_stage_decoder=[1, 2], conv_bias=True, **norm(3, **AFFINE), **LEAKY)),
    "residual3d": (3, 1, 2, (8, 8, 8), ResidualEncoderUNet, dict(
        features_per_stage=[4, 4, 5], kernel_sizes=[[3, 3, 3]] * 3, strides=[[1, 1, 1], [2, 2, 2], [1, 2, 2]],
        n_blocks_per_stage=[1, 2, 2], n_conv_per_stage_decoder=[1, 1], conv_bias=True, stem_channels=3,
        **norm(3, **AFFINE), **LEAKY)),
    "plain2d": (2, 1, 4, (16, 24), PlainConvUNet, dict(
        features_per_stage=[3, 4, 6], kernel_sizes=[[3, 3], [3, 3], [3, 3]], strides=[[1, 1], [2, 2], [2, 2]],
        n_conv_per_stage=2, n_conv_per_stage_decoder=2, conv_bias=True, **norm(2, **AFFINE), **LEAKY)),
    "anisotropic": (3, 1, 2, (4, 12, 24), PlainConvUNet, dict(
        features_per_stage=[3, 4, 5], kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 1, 5]],
        strides=[[1, 1, 1], [1, 2, 2], [2, 3, 4]], n_conv_per_stage=[1, 1, 1], n_conv_per_stage_decoder=[1, 1],
        conv_bias=True, **norm(3, **AFFINE), **LEAKY)),
    "no_bias_relu": (3, 1, 2, (8, 8, 8), PlainConvUNet, dict(
        features_per_stage=[3, 5], kernel_sizes=3, strides=[1, 2], n_conv_per_stage=[1, 1],
        n_conv_per_stage_decoder=[1], conv_bias=False, **norm(3, **AFFINE), **RELU)),
    "no_norm": (3, 1, 2, (4, 8, 8), PlainConvUNet, dict(
        features_per_stage=[3, 4], kernel_sizes=[[3, 3, 3]] * 2, strides=[[1, 1, 1], [2, 2, 2]],
        n_conv_per_stage=[1, 1], n_conv_per_stage_decoder=[1], conv_bias=True, **NO_NORM,
        nonlin="torch.nn.LeakyReLU", nonlin_kwargs={"negative_slope": 0.2})),
    "residual2d_plain_norm": (2, 2, 2, (16, 8), ResidualEncoderUNet, dict(
        features_per_stage=[3, 4, 4], kernel_sizes=[[3, 3], [3, 5], [1, 3]], strides=[[1, 1], [2, 1], [2, 2]],
        n_blocks_per_stage=[1, 1, 2], n_conv_per_stage_decoder=[1, 1], conv_bias=False, **norm(2, eps=1e-3), **RELU)),
}
IMPORTS = ["conv_op", "norm_op", "dropout_op", "nonlin"]


def plans(dims, channels, patch, cls, arguments):
    resample = lambda is_seg, order: dict(is_seg=is_seg, order=order, order_z=0, force_separate_z=None)
    fn = "resample_data_or_seg_to_shape"
    return {
        "dataset_name": "Dataset998_Network", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
        "configurations": {"small": {
            "preprocessor_name": "DefaultPreprocessor", "patch_size": list(patch), "spacing": [1.0] * dims,
            "normalization_schemes": ["ZScoreNormalization"] * channels, "use_mask_for_norm": [False] * channels,
            "resampling_fn_data": fn, "resampling_fn_data_kwargs": resample(False, 3),
            "resampling_fn_seg": fn, "resampling_fn_seg_kwargs": resample(True, 1),
            "resampling_fn_probabilities": fn, "resampling_fn_probabilities_kwargs": resample(False, 1),
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet." + cls.__name__,
                "arch_kwargs": arguments, "_kw_requires_import": IMPORTS}}}}


def small_state(net, everything):
    """The state dict in binary16 (the values fit), all tensors in one storage: a fraction of the file size.
    Without `everything`, the second names of the same tensors are left out."""
    state = {k: v for k, v in net.state_dict().items()
             if everything or not (k.startswith("decoder.encoder.") or ".all_modules." in k)}
    flat, out, at = torch.cat([v.flatten().half() for v in state.values()]), {}, 0
    for k, v in state.items():
        out[k] = flat[at:at + v.numel()].view(v.shape)
        at += v.numel()
    return out


def main():
    for seed, (name, (dims, channels, labels, patch, cls, arguments)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        features = arguments["features_per_stage"]
        arguments = dict(n_stages=len(features), conv_op=f"torch.nn.modules.conv.Conv{dims}d", **arguments,
                         dropout_op=None, dropout_op_kwargs=None)
        located = copy.deepcopy(arguments)
        for key in IMPORTS:
            located[key] = pydoc.locate(located[key]) if located[key] else None
        net = cls(input_channels=channels, num_classes=labels, deep_supervision=False, **located).eval()
        with torch.no_grad():
            for p in net.parameters():  # nothing left at a special value such as 0 or 1
                p.copy_((torch.randn_like(p) * 0.3 + (0.5 if p.ndim == 1 else 0.0)).half())
            x = torch.randn(1, channels, *patch)
            y = net(x)
        folder = OUT / name
        (folder / "fold_0").mkdir(parents=True, exist_ok=True)
        (folder / "plans.json").write_text(json.dumps(plans(dims, channels, patch, cls, arguments)))
        (folder / "dataset.json").write_text(json.dumps({
            "channel_names": {str(c): f"c{c}" for c in range(channels)}, "file_ending": ".nii.gz",
            "labels": {"background": 0, **{f"l{i}": i for i in range(1, labels)}}}))
        torch.save({"network_weights": small_state(net, name == "no_norm"), "trainer_name": "nnUNetTrainer",
                    "init_args": {"configuration": "small"}, "inference_allowed_mirroring_axes": None},
                   folder / "fold_0" / "checkpoint_final.pth")
        x[0].numpy().astype("<f4").tofile(folder / "input.f32")
        y[0].numpy().astype("<f4").tofile(folder / "output.f32")
        print(name, tuple(y.shape), float(y.abs().max()))


if __name__ == "__main__":
    main()
