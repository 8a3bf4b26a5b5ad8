"""The model x volume combinations of the parity suite, as plain data.

Every entry is a dict; keys not given take the value in DEFAULTS. Axis order is z, y, x everywhere (the order of the
array after reading), spacing in millimetres. `shape` and `patch` are the small ones kept in the repository; the full
set enlarges them (see `enlarge`). What an entry exercises is said in `features`.
"""
import copy

DEFAULTS = dict(
    dims=3,                       # dimensions of the configuration
    arch="plain",                 # plain: PlainConvUNet, residual: ResidualEncoderUNet
    shape=(22, 26, 24), spacing=(1.3, 0.9, 0.9), target=(1.0, 1.0, 1.0), patch=(16, 16, 16),
    features=(4, 8, 12), strides=None, kernels=None, conv_bias=True, nonlin="torch.nn.LeakyReLU",
    blocks=None, decoder=None,
    labels={"background": 0, "organ": 1, "lesion": 2, "cyst": 3}, regions_class_order=None,
    channels=("CT",), normalization=("CTNormalization",), mask_for_norm=(False,),
    transpose=(0, 1, 2), reader="SimpleITKIO", image="ct", dtype="int16", affine="plain",
    folds=(0,), step=0.5, tta=True, mirror_axes=None, save_probabilities=False, keep_tiles=False,
    resample="default", data_order=3, zero_border=None, old_plans=False, inherits=False, cascade=False,
    momentum=False, flat=False, seed=1, stored=True, checkpoint="checkpoint_final.pth",
)

REGIONS = dict(labels={"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}, regions_class_order=[1, 3, 2])

COMBOS = [
    dict(name="plain3d_iso_regions", features_tested=["plain 3-D", "isotropic resampling", "regions", "mirroring", "probabilities", "optimizer momentum in checkpoint"],
         save_probabilities=True, momentum=True, **REGIONS),
    dict(name="residual3d_softmax", features_tested=["residual 3-D", "softmax", "prime sizes", "probabilities", "step 0.75"],
         arch="residual", shape=(23, 29, 19), spacing=(1.25, 0.8, 0.7), step=0.75, save_probabilities=True),
    dict(name="plain2d_5mm", features_tested=["plain 2-D configuration", "slice-wise resampling", "stored tiles", "non-square patch"],
         dims=2, shape=(7, 37, 41), spacing=(5.0, 0.9, 0.9), target=(0.8, 0.8), patch=(24, 16), step=0.5, keep_tiles=True),
    dict(name="residual2d_transposed", features_tested=["residual 2-D configuration", "transpose_forward [2, 0, 1]", "3-D cubic zoom in a 2-D configuration"],
         dims=2, arch="residual", shape=(26, 31, 9), spacing=(0.9, 0.8, 1.5), target=(0.7, 0.75), patch=(16, 16), transpose=(2, 0, 1), step=0.75),
    dict(name="aniso_current_spacing", features_tested=["separate z by the scan's spacing", "anisotropic kernels and strides", "coarse axis resampled with order 0"],
         shape=(10, 33, 31), spacing=(4.0, 0.9, 0.9), target=(2.6, 1.0, 1.0), patch=(8, 16, 16),
         kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), tta=False),
    dict(name="aniso_new_spacing", features_tested=["separate z by the model's spacing only", "regions"],
         shape=(23, 27, 25), spacing=(1.6, 0.9, 0.9), target=(3.5, 1.0, 1.0), patch=(8, 16, 16),
         kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), step=0.75, **REGIONS),
    dict(name="smaller_than_patch", features_tested=["volume smaller than a patch", "odd padding", "inherits_from", "stored tiles"],
         shape=(9, 24, 13), spacing=(1.0, 1.0, 1.0), target=(1.0, 1.0, 1.0), patch=(16, 16, 16), inherits=True, keep_tiles=True, features=(4, 8)),
    dict(name="zscore_multichannel", features_tested=["three channels", "z-score inside the nonzero mask", "zero background with a hole", "crop", "transpose_forward [2, 0, 1]"],
         shape=(25, 28, 27), spacing=(1.2, 1.0, 0.9), channels=("T1", "T2", "FLAIR"), normalization=("ZScoreNormalization",) * 3,
         mask_for_norm=(True,) * 3, transpose=(2, 0, 1), image="mr", dtype="float32", zero_border=((3, 2), (4, 5), (2, 6)), tta=False),
    dict(name="two_folds", features_tested=["two folds", "conv_bias off", "ReLU", "transpose_forward [1, 0, 2]", "crop"],
         folds=(0, 1), conv_bias=False, nonlin="torch.nn.ReLU", transpose=(1, 0, 2), shape=(20, 27, 23), spacing=(1.2, 0.9, 1.1),
         image="ct", zero_border=((2, 1), (3, 2), (0, 4)), features=(4, 8)),
    dict(name="cascade", features_tested=["cascade with previous stage labels", "mirror axes of two axes only"],
         cascade=True, shape=(21, 24, 23), spacing=(1.3, 0.9, 0.9), tta=True, mirror_axes=(0, 2), step=0.75),
    dict(name="thick_5mm_regions", features_tested=["5 mm slices into an isotropic 3-D model", "regions", "step 1.0", "stored tiles"],
         shape=(6, 30, 29), spacing=(5.0, 0.9, 0.9), target=(1.5, 1.5, 1.5), patch=(12, 12, 12), step=1.0, keep_tiles=True, tta=False, features=(4, 8), **REGIONS),
    dict(name="nibabel_oblique", features_tested=["NibabelIO", "oblique sheared affine", "scaled int16 on disk"],
         reader="NibabelIO", affine="sheared", dtype="int16_scaled", shape=(21, 25, 23), spacing=(1.1, 0.9, 0.8), step=0.75, tta=False),
    dict(name="itk_flips_old_plans", features_tested=["direction flips", "plans without architecture", "ignore label"],
         affine="flips", old_plans=True, shape=(22, 23, 25), spacing=(1.1, 0.95, 0.9), tta=False,
         labels={"background": 0, "organ": 1, "lesion": 2, "ignore": 3}),
    dict(name="torch_resampling", features_tested=["resample_torch_fornnunet", "probabilities resampled in fp32", "float32 image"],
         resample="torch", shape=(20, 25, 27), spacing=(1.3, 0.8, 0.9), dtype="float32", step=0.75, tta=False),
    dict(name="no_resampling_mixed", features_tested=["no_resampling_hack", "RescaleTo01 and NoNormalization", "two channels"],
         resample="none", shape=(19, 23, 21), channels=("a", "b"), normalization=("RescaleTo01Normalization", "NoNormalization"),
         mask_for_norm=(False, False), image="small", dtype="float32", step=0.75, tta=True, mirror_axes=(1,)),
    dict(name="order1_zscore", features_tested=["order 1 data resampling", "z-score without mask", "uint8 scan", "checkpoint_best"],
         data_order=1, normalization=("ZScoreNormalization",), channels=("MR",), image="mr", dtype="uint8", shape=(23, 22, 26), spacing=(1.3, 0.8, 0.8),
         tta=False, checkpoint="checkpoint_best.pth"),
    # too much for the repository, or needing data outside it
    dict(name="torch_separate_z", features_tested=["resample_torch_fornnunet with separate z"], stored=False,
         resample="torch", shape=(8, 25, 27), spacing=(4.0, 0.8, 0.9), target=(2.5, 1.0, 1.0), patch=(8, 16, 16),
         strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), dtype="float32", tta=False),
    dict(name="flat_2d_image", features_tested=["2-D file in, 2-D file out", "spacing 999 times the largest"], stored=False,
         flat=True, dims=2, shape=(1, 45, 51), spacing=(1.0, 0.9, 0.8), target=(0.75, 0.75), patch=(24, 24)),
    dict(name="nibabel_reorient", features_tested=["NibabelIOWithReorient", "flipped and permuted axes"], stored=False,
         reader="NibabelIOWithReorient", affine="permuted", shape=(21, 25, 23), spacing=(1.1, 0.9, 0.8), step=0.75, tta=False),
]


def resolved(combo):
    out = copy.deepcopy(DEFAULTS)
    out.update(copy.deepcopy(combo))
    stages = len(out["features"])
    dims = out["dims"]
    if out["strides"] is None:
        out["strides"] = ((1,) * dims,) + ((2,) * dims,) * (stages - 1)
    if out["kernels"] is None:
        out["kernels"] = ((3,) * dims,) * stages
    out["strides"], out["kernels"] = list(out["strides"])[:stages], list(out["kernels"])[:stages]
    if out["blocks"] is None:
        out["blocks"] = [1, 2, 1][:stages] if out["arch"] == "residual" else [1] * (stages - 1) + [2]
    if out["decoder"] is None:
        out["decoder"] = [1] * (stages - 1)
    if out["mirror_axes"] is None:
        out["mirror_axes"] = tuple(range(dims))
    return out


def enlarge(combo):
    """The same combination at a size nearer to practice: sides about 2.2 times (kept odd), patches and features twice."""
    out = copy.deepcopy(combo)
    out["shape"] = tuple(1 if s == 1 else int(s * 2.2) | 1 for s in combo["shape"])
    if combo["name"] != "smaller_than_patch":
        out["patch"] = tuple(p * 2 for p in combo["patch"])
    else:
        out["shape"] = combo["shape"]
    out["features"] = tuple(f * 2 for f in combo["features"])
    if combo["zero_border"]:
        out["zero_border"] = tuple((a * 2, b * 2) for a, b in combo["zero_border"])
    out["keep_tiles"] = True
    return out
