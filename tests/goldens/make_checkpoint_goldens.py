"""Writes tests/goldens/checkpoint/: small checkpoints and pickles as PyTorch, NumPy and nnU-Net write them, and
some that must be refused. Needs torch, numpy and nnunetv2 2.8.1. Read by src/isoline/model/checkpoint_test.cpp.
"""
import pathlib
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import torch
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation
from torch.utils.serialization import config

OUT = pathlib.Path(__file__).parent / "checkpoint"


def values(n):
    return torch.arange(n, dtype=torch.float32) * 0.25 - 1


def minimal(weights):
    return {"network_weights": OrderedDict(weights), "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres"}, "inference_allowed_mirroring_axes": (0, 2)}


def trained():
    """Everything nnUNetTrainer.save_checkpoint writes, after real optimiser steps."""
    net = torch.nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        net.weight.copy_(values(2).view(2, 1, 1, 1))
        net.bias.copy_(values(2))
    optimizer = torch.optim.SGD(net.parameters(), 0.0, momentum=0.99, nesterov=True, weight_decay=3e-5)
    net(torch.ones(1, 1, 2, 2)).sum().backward()
    optimizer.step()
    return {
        "network_weights": net.state_dict(), "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000,
                              "_growth_tracker": 12},
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "ema_fg_dice": [np.float64(0.5)],
                    "dice_per_class_or_region": [[np.float64(0.25), np.float64(0.75)]], "lrs": [0.01],
                    "epoch_start_timestamps": [1.7e9], "array": [np.arange(3, dtype=np.float32)]},
        "_best_ema": np.float64(0.5), "current_epoch": 1000,
        "init_args": {"plans": {"plans_name": "nnUNetPlans", "a": [None, True, 2 ** 40, -3, 2 ** 70, -1.5]},
                      "configuration": "3d_fullres", "fold": 0, "dataset_json": {"labels": {"background": 0}},
                      "unpack_dataset": True, "device": torch.device("cuda", 0)},
        "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": (0, 1, 2)}


def rezip(source, target, method, shift):
    """The archive as an ordinary zip tool writes it: without alignment, perhaps compressed."""
    with zipfile.ZipFile(source) as a, zipfile.ZipFile(target, "w", method) as b:
        b.writestr("x" * shift, b"")
        for info in a.infolist():
            b.writestr(info.filename, a.read(info.filename))


class Foreign:
    pass


Foreign.__module__ = "somepackage.trainers"


def main():
    OUT.mkdir(exist_ok=True)
    save = lambda name, what, **kwargs: torch.save(what, OUT / name, **kwargs)
    base = values(24)
    save("trained.pth", trained())
    save("trained_protocol4.pth", trained(), pickle_protocol=4)
    views = {
        "contiguous": base.view(2, 3, 4), "shared": base[4:16].view(3, 4), "transposed": base.view(4, 6).t(),
        "strided": base[1::2], "expanded": base[3:4].expand(2, 3), "channels_last":
            base.view(1, 2, 3, 4).to(memory_format=torch.channels_last), "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(values(3)), "half": values(5).half(),
        "bfloat16": values(5).bfloat16(), "double": values(5).double(), "module.wrapped": values(2),
        "_orig_mod.compiled": values(2), "module._orig_mod.both": values(2)}
    save("views.pth", minimal(views))
    rezip(OUT / "views.pth", OUT / "views_deflated.pth", zipfile.ZIP_DEFLATED, 1)
    rezip(OUT / "views.pth", OUT / "views_unaligned.pth", zipfile.ZIP_STORED, 3)
    zipfile.ZIP64_LIMIT, limit = 16, zipfile.ZIP64_LIMIT  # as if every size and offset needed more than 32 bits
    rezip(OUT / "views.pth", OUT / "views_zip64.pth", zipfile.ZIP_STORED, 3)
    zipfile.ZIP64_LIMIT = limit
    config.save.compute_crc32 = False
    save("no_checksums.pth", minimal({"a": values(3)}))
    config.save.compute_crc32 = True
    save("no_mirroring.pth", {**minimal({"a": values(3)}), "inference_allowed_mirroring_axes": None})

    # must be refused
    save("legacy.pth", minimal({"a": values(3)}), _use_new_zipfile_serialization=False)
    save("integer_weights.pth", minimal({"norm.num_batches_tracked": torch.tensor(3)}))
    package, module = types.ModuleType("somepackage"), types.ModuleType("somepackage.trainers")
    module.Foreign, sys.modules["somepackage"], sys.modules["somepackage.trainers"] = Foreign, package, module
    save("foreign_class.pth", {**minimal({"a": values(3)}), "logging": Foreign()})
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), OUT / "torchscript.pth")

    steps = ([remove_all_but_largest_component_from_segmentation] * 3,
             [{"labels_or_regions": [np.int64(1), np.int64(2), np.int64(3)]}, {"labels_or_regions": (2, 3)},
              {"labels_or_regions": [(3, 1), 5], "background_label": 4}])
    for protocol in (2, 3, 4, 5):
        (OUT / f"postprocessing_{protocol}.pkl").write_bytes(pickle.dumps(steps, protocol))
    # NumPy 1 pickles differ in the module's name only
    old = pickle.dumps(steps, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (OUT / "postprocessing_numpy1.pkl").write_bytes(old)
    (OUT / "postprocessing_none.pkl").write_bytes(pickle.dumps(([], []), 4))
    (OUT / "postprocessing_other.pkl").write_bytes(pickle.dumps(([np.load], [{}]), 4))


if __name__ == "__main__":
    main()
