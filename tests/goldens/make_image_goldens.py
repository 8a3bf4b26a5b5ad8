#!/usr/bin/env python3
"""Writes tests/goldens/image: small encoded pictures with the pixels Pillow reads from them, resizes and whole
preprocessings by Pillow and torchvision. Made with Pillow 12.0, numpy 2.4, torch 2.11, torchvision 0.26. Two deviations are meant: 16-bit grey keeps its upper 8
bits (Pillow's conversion to RGB saturates nearly everything to white), and Pillow 13 resizes columns before rows in some
cases, which changes some values by one.
"""
import io
import json
import pathlib
import shutil
import struct
import zlib

import numpy as np
import torchvision.transforms as tv
from PIL import Image, ImageOps

OUT = pathlib.Path(__file__).parent / "image"


def picture(width, height, seed):
    """Smooth shapes with some noise, so that no two pixels agree by chance."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(x / rng.uniform(2, 9) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(2, 9)) for _ in range(3)]
    return Image.fromarray(np.clip(np.stack(waves, -1) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    e = Image.Exif()
    e[0x0112] = orientation
    e[0x010F] = "maker"
    return e.tobytes()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, color, rows, extra=b""):
    """A PNG by hand, for what Pillow does not write."""
    raw = b"".join(b"\0" + r for r in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)) + extra +
            chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def decode_files():
    im = picture(29, 21, 1)
    gray = im.convert("L")
    rgba = im.copy()
    rgba.putalpha(picture(29, 21, 2).convert("L"))
    files = {
        "rgb444.jpg": encoded(im, "JPEG", quality=90, subsampling=0),
        "rgb422.jpg": encoded(im, "JPEG", quality=80, subsampling=1),
        "rgb420.jpg": encoded(im, "JPEG", quality=75, subsampling=2),
        "progressive.jpg": encoded(im, "JPEG", quality=75, progressive=True),
        "restarts.jpg": encoded(im, "JPEG", quality=75, restart_marker_blocks=1),
        "gray.jpg": encoded(gray, "JPEG", quality=85),
        "cmyk.jpg": encoded(im.convert("CMYK"), "JPEG", quality=90),
        "one_pixel.jpg": encoded(picture(1, 1, 3), "JPEG"),
        "rgb.png": encoded(im, "PNG"),
        "rgba.png": encoded(rgba, "PNG"),
        "gray.png": encoded(gray, "PNG"),
        "gray_alpha.png": encoded(rgba.convert("LA"), "PNG"),
        "bits1.png": encoded(gray.convert("1"), "PNG"),
        "palette.png": encoded(im.quantize(37), "PNG"),
        "palette4.png": encoded(im.quantize(13), "PNG", bits=4),
        "palette_transparent.png": encoded(im.quantize(37), "PNG", transparency=3),
        "lossy.webp": encoded(im, "WEBP", quality=80),
        "lossless.webp": encoded(im, "WEBP", lossless=True),
        "lossy_alpha.webp": encoded(rgba, "WEBP", quality=80, exact=True),
        "lossless_alpha.webp": encoded(rgba, "WEBP", lossless=True, exact=True),
    }
    for o in range(1, 9):
        files[f"turned{o}.jpg"] = encoded(im, "JPEG", quality=90, exif=exif(o))
        if o in (1, 3, 6):
            files[f"turned{o}.png"] = encoded(im, "PNG", exif=exif(o))
            files[f"turned{o}.webp"] = encoded(im, "WEBP", quality=90, exif=exif(o))
    files["turned_big_endian.jpg"] = encoded(im, "JPEG", quality=90, exif=b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(
        ">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0))
    files["turned_wrongly.jpg"] = encoded(im, "JPEG", quality=90, exif=b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(
        ">HHHIHHI", 1, 0x0112, 3, 1, 9, 0, 0))
    wide = np.asarray(im).astype(">u2") * 257 - 100 * (np.asarray(im) > 90)
    files["rgb16.png"] = png(29, 21, 16, 2, [r.astype(">u2").tobytes() for r in wide])
    g16 = np.asarray(gray).astype(">u2") * 257 - 100 * (np.asarray(gray) > 90)
    files["gray16.png"] = png(29, 21, 16, 0, [r.astype(">u2").tobytes() for r in g16])
    files["gray_key.png"] = png(29, 21, 8, 0, [r.tobytes() for r in np.asarray(gray)], chunk(b"tRNS", b"\0\x40"))
    # Adam7: Pillow reads it but does not write it.
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    array = np.asarray(im)
    raw = b"".join(b"\0" + row.tobytes() for x0, y0, dx, dy in passes for row in array[y0::dy, x0::dx])
    files["interlaced.png"] = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 29, 21, 8, 2, 0, 0, 1)) +
                               chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))
    return files


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for folder in ("decode", "resize", "preprocess"):
        (OUT / folder).mkdir(parents=True)
    for name, data in decode_files().items():
        (OUT / "decode" / name).write_bytes(data)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        if upright.mode.startswith("I;16"):
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        np.save(OUT / "decode" / (name + ".npy"), np.asarray(upright.convert("RGB")))

    source = picture(61, 43, 5)
    source.save(OUT / "resize" / "source.png")
    for filter_name, f in (("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)):
        for w, h in ((61, 43), (20, 14), (7, 5), (1, 1), (90, 100), (61, 10), (13, 43), (128, 3)):
            np.save(OUT / "resize" / f"{filter_name}_{w}x{h}.npy", np.asarray(source.resize((w, h), f)))

    photos = {"wide.jpg": encoded(picture(67, 40, 6), "JPEG", quality=92),
              "tall.png": encoded(picture(31, 58, 7), "PNG"),
              "turned.jpg": encoded(picture(67, 40, 8), "JPEG", quality=92, exif=exif(6)),
              "square.webp": encoded(picture(48, 48, 9), "WEBP", quality=90)}
    for name, data in photos.items():
        (OUT / "preprocess" / name).write_bytes(data)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    cases = {}
    shortest = {"mode": "shortest_side", "shortest_side": 19, "crop": [16, 14], "filter": "bilinear"}
    imagenet = {"divide_by": 255, "mean": mean, "std": std}
    cases["torchvision"] = ({"type": "FP32", "layout": "NCHW", "colors": "RGB"}, shortest, imagenet)
    cases["torchvision_half"] = ({"type": "FP16", "layout": "NCHW", "colors": "RGB"}, dict(shortest, filter="bicubic"), imagenet)
    cases["stretch_nhwc_bgr"] = ({"type": "FP32", "layout": "NHWC", "colors": "BGR"},
                                 {"mode": "stretch", "size": [9, 15], "filter": "bicubic"},
                                 {"divide_by": 1, "mean": [103.939, 116.779, 123.68], "std": [1, 1, 1]})
    cases["pad_bytes"] = ({"type": "UINT8", "layout": "NHWC", "colors": "RGB"},
                          {"mode": "pad", "size": [16, 21], "filter": "bicubic", "fill_rgb": [10, 200, 30]}, None)
    cases["pad_gray"] = ({"type": "FP32", "layout": "NCHW", "colors": "GRAY"},
                         {"mode": "pad", "size": [20, 11], "filter": "bilinear", "fill_rgb": [114, 114, 114]},
                         {"divide_by": 127.5, "mean": [1], "std": [1]})
    for name, (input_, resize, normalization) in cases.items():
        spec = {"isoline_image_model": 1, "name": name, "onnx": "model.onnx", "input": input_, "resize": resize, "output": {}}
        if normalization:
            spec["normalization"] = normalization
        (OUT / "preprocess" / f"{name}.json").write_text(json.dumps(spec) + "\n")
        for photo, data in photos.items():
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L" if input_["colors"] == "GRAY" else "RGB")
            f = Image.BILINEAR if resize["filter"] == "bilinear" else Image.BICUBIC
            if resize["mode"] == "shortest_side":
                mode = tv.InterpolationMode.BILINEAR if resize["filter"] == "bilinear" else tv.InterpolationMode.BICUBIC
                image = tv.CenterCrop(resize["crop"])(tv.Resize(resize["shortest_side"], mode)(image))
                tensor = tv.Normalize(mean, std)(tv.ToTensor()(image)).numpy()
                array = tensor
            else:
                size = resize["size"][1], resize["size"][0]
                if resize["mode"] == "stretch":
                    image = image.resize(size, f)
                else:
                    fill = resize["fill_rgb"]
                    image = ImageOps.pad(image, size, f, color=fill[0] if image.mode == "L" else tuple(fill))
                array = np.asarray(image)
                if array.ndim == 2:
                    array = array[..., None]
                if input_["colors"] == "BGR":
                    array = array[..., ::-1]
                if normalization:
                    array = (array.astype(np.float32) / np.float32(normalization["divide_by"]) -
                             np.float32(normalization["mean"])) / np.float32(normalization["std"])
                if input_["layout"] == "NCHW":
                    array = array.transpose(2, 0, 1)
            if input_["type"] == "FP16":
                array = array.astype(np.float16)
            np.save(OUT / "preprocess" / f"{name}_{photo}.npy", np.ascontiguousarray(array))


if __name__ == "__main__":
    main()
