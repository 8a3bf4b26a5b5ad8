#!/usr/bin/env python3
"""Turns the golden model residual3d_softmax into an ONNX bundle, so that both ways in can be compared.

    python make_onnx_bundle.py            (needs nnunetv2 2.8.1, torch 2.11.0 and onnx 1.22)

Writes onnx_bundle/model.onnx. isoline.json beside it says what plans.json and dataset.json say in the original.
"""
import json
from pathlib import Path

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "parity" / "residual3d_softmax" / "model"


def main():
    plans = json.loads((SOURCE / "plans.json").read_text())
    dataset = json.loads((SOURCE / "dataset.json").read_text())
    checkpoint = torch.load(next(SOURCE.glob("fold_0/*.pth")), map_location="cpu", weights_only=False)
    configuration = plans["configurations"][checkpoint["init_args"]["configuration"]]
    a = configuration["architecture"]
    net = get_network_from_plans(a["network_class_name"], a["arch_kwargs"], a["_kw_requires_import"],
                                 len(dataset["channel_names"]), len(dataset["labels"]), deep_supervision=True)
    net.load_state_dict(checkpoint["network_weights"])
    net.decoder.deep_supervision = False
    net.eval()
    x = torch.zeros(1, len(dataset["channel_names"]), *configuration["patch_size"])
    torch.onnx.export(net, (x,), HERE / "onnx_bundle" / "model.onnx", input_names=["image"], output_names=["logits"],
                      opset_version=17, dynamo=False)


if __name__ == "__main__":
    main()
