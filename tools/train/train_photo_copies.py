#!/usr/bin/env python3
"""Trains the bundled image network models/photo_copies on invented photographs and measures it on others.

The network turns a photograph into 128 numbers that are nearly the same for copies of it (recompressed, resized,
cropped, mirrored, turned, recoloured) and different for other photographs. Needs torch, numpy, Pillow and onnx; one CPU
core will do. Writes model.onnx, isoline_image.json and measured.md.

  python3 tools/train/train_photo_copies.py --out OUT --minutes 10 --photos 2500 --batch 64 --held-out 800
"""
import argparse
import json
import pathlib
import time

import numpy as np
import onnx
import torch
import torch.nn as nn
import torch.nn.functional as F
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper
from PIL import Image

import synthetic_photos as sp

SIDE, DIMENSIONS = 96, 128
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
WIDTHS = [16, 32, 64, 128]
HELD_OUT = 10_000_000  # seeds from here on are never trained on

started = time.monotonic()


def say(*words):
    print(f"[{time.monotonic() - started:6.1f}s]", *words, flush=True)


class Block(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.na = nn.Conv2d(n, n, 3, 1, 1, bias=False), nn.BatchNorm2d(n)
        self.b, self.nb = nn.Conv2d(n, n, 3, 1, 1, bias=False), nn.BatchNorm2d(n)

    def forward(self, x):
        return F.relu(x + self.nb(self.b(F.relu(self.na(self.a(x))))))


class Network(nn.Module):
    """Strided convolutions, a residual block after each but the first, generalised-mean pooling (p = 3), one linear map."""

    def __init__(self):
        super().__init__()
        self.down, self.norm, self.blocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = 3
        for i, n in enumerate(WIDTHS):
            self.down.append(nn.Conv2d(before, n, 3, 2, 1, bias=False))
            self.norm.append(nn.BatchNorm2d(n))
            self.blocks.append(Block(n) if i else nn.Identity())
            before = n
        self.last = nn.Linear(before, DIMENSIONS)

    def forward(self, x):
        for down, norm, block in zip(self.down, self.norm, self.blocks):
            x = block(F.relu(norm(down(x))))
        x = (x + 1e-3).pow(3).mean((2, 3)).pow(1 / 3)
        return self.last(x)


def prepared(image):
    """What isoline_image.json says, with Pillow: stretch, scale, normalise."""
    array = np.asarray(image.resize((SIDE, SIDE), Image.BILINEAR), np.float32) / np.float32(255)
    return ((array - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)


# ---------------------------------------------------------------- training

def train(network, minutes, photos, batch, rng):
    say(f"rendering {photos} photographs, one in four with a sibling")
    bases, siblings = [], {}
    for seed in range(photos):
        bases.append(sp.photo(seed))
        if seed % 4 == 0:
            siblings[seed] = sp.photo(seed, 1)
    say("training")
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-4)
    begun, step, shown = time.monotonic(), 0, []
    while (done := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * done)) + 1e-5
        chosen = []
        for seed in rng.choice(photos, batch, replace=False):
            chosen.append(bases[seed])
            if seed in siblings:
                chosen.append(siblings[seed])
        chosen = chosen[:batch]
        views = np.stack([prepared(sp.view(a, rng)) for a in chosen] + [prepared(sp.view(a, rng)) for a in chosen])
        vectors = F.normalize(network(torch.from_numpy(views)))
        similar = vectors @ vectors.T / 0.07
        similar.fill_diagonal_(-1e9)
        n = len(chosen)
        loss = F.cross_entropy(similar, torch.cat([torch.arange(n, 2 * n), torch.arange(n)]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        shown.append(loss.item())
        step += 1
        if step % 50 == 0:
            say(f"step {step}, loss {np.mean(shown[-50:]):.3f}")
    return step, time.monotonic() - begun


# ---------------------------------------------------------------- ONNX

def folded(conv, norm):
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
    return (conv.weight.detach() * scale[:, None, None, None]).numpy(), (norm.bias.detach() - norm.running_mean * scale).numpy()


def export(network, path):
    """Batch normalisation folded into the convolutions; the batch axis free."""
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def conv(name, x, module, norm, stride):
        w, b = folded(module, norm)
        nodes.append(h.make_node("Conv", [x, constant(name + ".w", w), constant(name + ".b", b)], [name], kernel_shape=[3, 3],
                                 strides=[stride] * 2, pads=[1] * 4))
        return name

    def node(kind, inputs, name, **attributes):
        nodes.append(h.make_node(kind, inputs, [name], **attributes))
        return name

    x = "image"
    for i, (down, norm, block) in enumerate(zip(network.down, network.norm, network.blocks)):
        x = node("Relu", [conv(f"down{i}", x, down, norm, 2)], f"stage{i}")
        if isinstance(block, Block):
            y = node("Relu", [conv(f"block{i}a", x, block.a, block.na, 1)], f"block{i}r")
            y = node("Add", [x, conv(f"block{i}b", y, block.b, block.nb, 1)], f"block{i}s")
            x = node("Relu", [y], f"block{i}")
    x = node("Add", [x, constant("small", 1e-3)], "positive")
    x = node("Pow", [x, constant("three", 3)], "cubed")
    x = node("GlobalAveragePool", [x], "pooled")
    x = node("Pow", [x, constant("third", 1 / 3)], "mean")
    x = node("Flatten", [x], "flat")
    node("Gemm", [x, constant("last.w", network.last.weight.detach().numpy()), constant("last.b", network.last.bias.detach().numpy())],
         "embedding", transB=1)
    graph = h.make_graph(nodes, "photo_copies", [h.make_tensor_value_info("image", T.FLOAT, ["n", 3, SIDE, SIDE])],
                         [h.make_tensor_value_info("embedding", T.FLOAT, ["n", DIMENSIONS])], constants)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8, producer_name="train_photo_copies.py")
    onnx.checker.check_model(model)
    onnx.save(model, path)


SPEC = {
    "isoline_image_model": 1,
    "name": "photo_copies",
    "onnx": "model.onnx",
    "input": {"name": "image", "type": "FP32", "layout": "NCHW", "colors": "RGB"},
    "resize": {"mode": "stretch", "size": [SIDE, SIDE], "filter": "bilinear"},
    "normalization": {"divide_by": 255, "mean": MEAN, "std": STD},
    "output": {"name": "embedding", "l2_normalize": True},
}


# ---------------------------------------------------------------- evaluation, of the file that was written

class Exported:
    """Runs model.onnx with torch: the handful of operations export() writes."""

    def __init__(self, path):
        graph = onnx.load(path).graph
        self.nodes = graph.node
        self.constants = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}

    def __call__(self, images):
        v = dict(self.constants, image=torch.from_numpy(np.stack([prepared(i) for i in images])))
        for n in self.nodes:
            x = [v[name] for name in n.input]
            at = {a.name: h.get_attribute_value(a) for a in n.attribute}
            v[n.output[0]] = {"Conv": lambda: F.conv2d(*x, stride=at["strides"][0], padding=1), "Relu": lambda: F.relu(x[0]),
                              "Add": lambda: x[0] + x[1], "Pow": lambda: x[0].pow(x[1]),
                              "GlobalAveragePool": lambda: x[0].mean((2, 3), keepdim=True), "Flatten": lambda: x[0].flatten(1),
                              "Gemm": lambda: F.linear(*x)}[n.op_type]()
        return F.normalize(v["embedding"]).numpy()


def dhash(image):
    small = np.asarray(image.convert("L").resize((9, 8), Image.BILINEAR), np.int16)
    return (small[:, 1:] > small[:, :-1]).reshape(-1)


def evaluate(model, photos, rng):
    """Originals and siblings make the index; each kind of copy is looked up in it. Each method has one threshold: the
    largest similarity of two different scenes on a separate set of photographs. Siblings (see synthetic_photos.photo)
    do not set it; how many of them lie above it is said instead."""

    def vectors(images):
        with torch.no_grad():
            return np.concatenate([model(images[k:k + 64]) for k in range(0, len(images), 64)])

    def hashes(images):
        bits = np.stack([dhash(i) for i in images]).astype(np.float32) * 2 - 1
        return bits / 8  # inner product = 1 - Hamming distance / 32

    seeds = np.concatenate([np.arange(photos), np.arange(0, photos, 4)])  # of the index

    def scene(first):
        return ([Image.fromarray(sp.photo(first + k)) for k in range(photos)] +
                [Image.fromarray(sp.photo(first + k, 1)) for k in range(0, photos, 4)])

    different = seeds[:, None] != seeds[None, :]
    tune, index_pictures = scene(HELD_OUT + 500_000), scene(HELD_OUT)
    methods = {"network": vectors, "dHash": hashes}
    thresholds, indices, siblings = {}, {}, {}
    for name, method in methods.items():
        v = method(tune)
        thresholds[name] = float((v @ v.T)[different].max())
        indices[name] = v = method(index_pictures)
        siblings[name] = float(((v[:photos:4] * v[photos:]).sum(1) > thresholds[name]).mean())
    say("thresholds", thresholds, "siblings above", siblings)
    rows = []
    for kind, make in sp.copies().items():
        queries = [make(image, rng) for image in index_pictures[:photos]]
        row = {"copy": kind}
        for name, method in methods.items():
            similar = method(queries) @ indices[name].T
            own = similar[np.arange(photos), np.arange(photos)]
            row[name] = {"first": float((similar.argmax(1) == np.arange(photos)).mean()),
                         "above": float((own > thresholds[name]).mean()),
                         "strangers": int((similar[different[:photos]] > thresholds[name]).sum())}
        say(row)
        rows.append(row)
    return thresholds, siblings, rows


def report(result, photos):
    thresholds, siblings, rows = result
    lines = ["| copy | network: first | dHash: first | network: above | dHash: above | strangers above, network, dHash |",
             "|---|---|---|---|---|---|"]
    for r in rows:
        n, d = r["network"], r["dHash"]
        lines.append(f"| {r['copy']} | {n['first']:.3f} | {d['first']:.3f} | {n['above']:.3f} | {d['above']:.3f} | "
                     f"{n['strangers']}, {d['strangers']} |")
    return (f"Held out: {photos} photographs and {len(range(0, photos, 4))} siblings. Thresholds (cosine; dHash: 1 - distance / 32): "
            f"{thresholds['network']:.4f}, {thresholds['dHash']:.4f}. Siblings above them: {siblings['network']:.3f}, "
            f"{siblings['dHash']:.3f}.\n\n" + "\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluate", action="store_true", help="only measure the model.onnx in --out")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    a.out.mkdir(parents=True, exist_ok=True)
    made = ""
    if not a.evaluate:
        network = Network()
        parameters = sum(p.numel() for p in network.parameters())
        steps, seconds = train(network, a.minutes, a.photos, a.batch, np.random.default_rng(1))
        network.eval()
        export(network, a.out / "model.onnx")
        (a.out / "isoline_image.json").write_text(json.dumps(SPEC, indent=2) + "\n")
        made = (f"{parameters} parameters; {steps} steps of {2 * a.batch} views in {seconds:.0f} s, {a.photos} photographs, "
                f"{a.threads} thread(s), torch {torch.__version__}. ")
    result = evaluate(Exported(a.out / "model.onnx"), a.held_out, np.random.default_rng(2))
    (a.out / "measured.md").write_text(made + report(result, a.held_out))


if __name__ == "__main__":
    main()
