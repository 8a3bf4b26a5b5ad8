#!/usr/bin/env python3
"""Writes tests/goldens/embed: small invented photographs, copies of them, and the vectors models/photo_copies gives for
them with Pillow and torch. Needs what tools/train/train_photo_copies.py needs. Made with Pillow 12.0 and torch 2.11."""
import pathlib
import sys

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools" / "train"))
import synthetic_photos as sp  # noqa: E402
import train_photo_copies as train  # noqa: E402

OUT = HERE / "embed"


def main():
    OUT.mkdir(exist_ok=True)
    rng = np.random.default_rng(4)
    for k in range(3):
        photo = sp.scaled(Image.fromarray(sp.photo(30_000_000 + k)), 0.6)
        photo.save(OUT / f"photo{k}.webp", quality=80)
        sp.cropped(photo, rng, 0.9).save(OUT / f"photo{k}_copy.jpg", quality=60)
    gray = Image.open(OUT / "photo0.webp").convert("L").quantize(64)
    gray.save(OUT / "photo0_gray.png")
    model = train.Exported(HERE.parents[1] / "models" / "photo_copies" / "model.onnx")
    files = sorted(p for p in OUT.iterdir() if p.suffix in (".jpg", ".png", ".webp"))
    vectors = np.concatenate([model([Image.open(f).convert("RGB")]) for f in files])
    (OUT / "vectors.txt").write_text("".join(f.name + " " + " ".join(f"{x:.7g}" for x in v) + "\n" for f, v in zip(files, vectors)))


if __name__ == "__main__":
    main()
