#!/usr/bin/env python3
"""Makes tests/goldens/io: small NIfTI files and what nnU-Net's readers and writers make of them.

Needs nnunetv2 2.8.1, SimpleITK 2.5 (ITK 5.4) and nibabel 5.4. Usage: make_io_goldens.py [OUTPUT_FOLDER]

manifest.txt, one case a line, fields separated by blanks:
  read FILE READER ARRAY.npy SPACING[3, z y x] SITK_OR_NIB [ORIGIN[3] DIRECTION[9, row-major]]
      the array as read_images returns it (float32, [c, z, y, x]); origin and direction only for the ITK readers,
      2-D images embedded in 3-D
  refuse FILE READER
  write FILE READER EXPECTED.nii   (FILE's first channel as labels through write_seg, uncompressed)
"""
import gzip
import hashlib
import itertools
import os
import struct
import sys

import nibabel
import nibabel.quaternions
import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

READERS = [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient]
TYPES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}
PIXDIM = (1, 0.7, 0.8, 2.5, 1, 1, 1, 1)
SFORM = np.array([[-0.7, 0, 0, 31.5], [0, 0.8, 0, -20.25], [0, 0, 2.5, 7]])


def header(shape, dtype, order="<", pixdim=PIXDIM, slope=1.0, inter=0.0, quatern=(0, 0, 0), offset=(0, 0, 0),
           sform=SFORM, codes=(0, 1), units=2, vox_offset=352.0, intent=0):
    h = bytearray(352)
    dims = [len(shape)] + list(shape) + [1] * (7 - len(shape))
    struct.pack_into(order + "i", h, 0, 348)
    struct.pack_into(order + "8h", h, 40, *dims)
    struct.pack_into(order + "2h", h, 68, intent, TYPES[dtype])
    struct.pack_into(order + "h", h, 72, 8 * np.dtype(dtype).itemsize)
    struct.pack_into(order + "8f", h, 76, *pixdim)
    struct.pack_into(order + "3f", h, 108, vox_offset, slope, inter)
    h[123] = units
    struct.pack_into(order + "2h", h, 252, *codes)
    struct.pack_into(order + "6f", h, 256, *quatern, *offset)
    struct.pack_into(order + "12f", h, 280, *np.asarray(sform, float).ravel())
    h[344:347] = b"n+1"
    return bytes(h)


def header2(shape, dtype, order="<"):
    h = bytearray(544)
    dims = [len(shape)] + list(shape) + [1] * (7 - len(shape))
    struct.pack_into(order + "i", h, 0, 540)
    h[4:12] = b"n+2\0\r\n\x1a\n"
    struct.pack_into(order + "2h", h, 12, TYPES[dtype], 8 * np.dtype(dtype).itemsize)
    struct.pack_into(order + "8q", h, 16, *dims)
    struct.pack_into(order + "8d", h, 104, *PIXDIM)
    struct.pack_into(order + "q2d", h, 168, 544, 1.0, 0.0)
    struct.pack_into(order + "2i", h, 344, 0, 1)
    struct.pack_into(order + "12d", h, 400, *SFORM.ravel())
    struct.pack_into(order + "i", h, 500, 2)
    return bytes(h)


def raw(array, order):
    return np.asfortranarray(array).astype(array.dtype.newbyteorder(order)).tobytes(order="F")


def rotation(rng, axis_aligned=False):
    if axis_aligned:
        return np.eye(3)[rng.permutation(3)] * rng.choice([-1.0, 1.0], size=3)
    return np.linalg.qr(rng.normal(size=(3, 3)))[0]


def quaternion(matrix):
    matrix = matrix.copy()
    qfac = 1
    if np.linalg.det(matrix) < 0:
        matrix[:, 2] *= -1
        qfac = -1
    return nibabel.quaternions.mat2quat(matrix)[1:], qfac


def files(rng):
    """Yields name, bytes."""
    shape = (5, 4, 3)
    # Types, byte orders, scalings. Values of integer types span the type in one file and stay small in the other.
    scalings = [(1, 0), (0, 5), (1, -1024), (0.1, 3.7), (-1.5, 100), (float("nan"), float("nan")), (1, 0.5)]
    pick = itertools.cycle(scalings)
    for dtype in TYPES:
        for order in "<>":
            slope, inter = next(pick)
            if dtype[0] == "f":
                values = (rng.normal(size=shape) * 100).astype(dtype)
            else:
                info = np.iinfo(dtype)
                values = rng.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)
                if order == "<":
                    values = (values % 100).astype(dtype)
            name = f"{dtype}_{'le' if order == '<' else 'be'}.nii"
            yield name, header(shape, dtype, order, slope=slope, inter=inter) + raw(values, order)
    labels = rng.integers(0, 4, size=shape).astype("i2")
    # Orientation: qform, sform, both; oblique and axis-aligned; units; negative and odd pixdim.
    spacing = np.array([0.7, 0.8, 2.5], np.float32)
    for i, (codes, aligned, units) in enumerate([((1, 0), False, 2), ((0, 1), False, 2), ((1, 1), False, 2), ((0, 2), True, 2),
                                                 ((3, 0), True, 3), ((0, 0), True, 2), ((1, 1), True, 1), ((2, 0), False, 0)]):
        r = rotation(rng, aligned)
        q, qfac = quaternion(r)
        offset = np.round(rng.normal(size=3) * 100, 2)
        pixdim = [qfac, *spacing, 1, 1, 1, 1]
        if i == 7:
            pixdim[2] *= -1
        sform = np.c_[r * spacing, offset]
        yield f"placed_{i}.nii", header(shape, "i2", pixdim=pixdim, quatern=q, offset=offset, sform=sform, codes=codes,
                                        units=units) + raw(labels, "<")
    other = np.c_[rotation(rng) * spacing, [1, 2, 3]]
    q, qfac = quaternion(rotation(rng))
    yield "forms_disagree.nii", header(shape, "i2", pixdim=(qfac, *spacing, 1, 1, 1, 1), quatern=q, offset=(4, 5, 6),
                                       sform=other, codes=(1, 2)) + raw(labels, "<")
    shear = SFORM.copy()
    shear[0, 1] = 0.3
    yield "sheared.nii", header(shape, "i2", sform=shear) + raw(labels, "<")
    # Numbers of axes.
    for dims, intent in [((5, 4), 0), ((5, 4, 1), 0), ((5, 4, 3, 2), 0), ((5, 4, 3, 1), 0), ((5, 4, 3), 1002), ((5, 4, 3), 1007),
                         ((5,), 0), ((5, 4, 3, 2, 2), 0)]:
        a = rng.integers(0, 4, size=dims).astype("u1")
        yield f"axes_{'x'.join(map(str, dims))}_{intent}.nii", header(dims, "u1", intent=intent) + raw(a, "<")
    # Largest labels around the change from uint8 to uint16.
    for top in (254, 255, 300):
        a = np.zeros((4, 3, 2), "u2")
        a[2, 1, 1] = top
        yield f"top_label_{top}.nii", header(a.shape, "u2") + raw(a, "<")
    # Containers.
    yield "offset_368.nii", header(shape, "i2", vox_offset=368) + bytes(16) + raw(labels, "<")
    yield "offset_0.nii", header(shape, "i2", vox_offset=0) + raw(labels, "<") + bytes(16)
    yield "version2.nii", header2(shape, "i2") + raw(labels, "<")
    yield "version2_be.nii", header2(shape, "f4", ">") + raw(labels.astype("f4"), ">")
    data = header(shape, "i2") + raw(labels, "<")
    yield "plain.nii.gz", gzip.compress(data, mtime=0)
    yield "members.nii.gz", gzip.compress(data[:100], mtime=0) + gzip.compress(data[100:400], mtime=0) + gzip.compress(data[400:], mtime=0)
    yield "padded.nii.gz", gzip.compress(data, mtime=0) + bytes(32)
    yield "surplus.nii.gz", gzip.compress(data + b"behind the voxels" * 9, mtime=0)


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "io")
    os.makedirs(out, exist_ok=True)
    for old in os.listdir(out):
        os.remove(os.path.join(out, old))
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    lines = []
    arrays = {}
    for name, content in files(np.random.default_rng(20260)):
        path = os.path.join(out, name)
        with open(path, "wb") as f:
            f.write(content)
        for reader in READERS:
            if name == "offset_0.nii" and issubclass(reader, (NibabelIO, NibabelIOWithReorient)):
                lines.append(f"refuse {name} {reader.__name__}")  # nibabel reads the header as voxels
                continue
            try:
                array, properties = reader().read_images([path])
            except BaseException:  # assertions and library errors alike
                lines.append(f"refuse {name} {reader.__name__}")
                continue
            digest = hashlib.sha256(array.tobytes() + str(array.shape).encode()).hexdigest()[:10]
            if digest not in arrays:
                arrays[digest] = f"{digest}.npy"
                np.save(os.path.join(out, arrays[digest]), np.ascontiguousarray(array))
            fields = ["read", name, reader.__name__, arrays[digest], *(repr(float(s)) for s in properties["spacing"])]
            if "sitk_stuff" in properties:
                stuff = properties["sitk_stuff"]
                n = len(stuff["spacing"])
                m = min(n, 3)
                direction = np.eye(3)
                direction[:m, :m] = np.array(stuff["direction"]).reshape(n, n)[:m, :m]
                origin = np.zeros(3)
                origin[:m] = stuff["origin"][:m]
                fields += ["sitk", *(repr(float(v)) for v in origin), *(repr(float(v)) for v in direction.ravel())]
            else:
                fields += ["nib"]
            lines.append(" ".join(fields))
            whole = array.min() >= 0 and np.all(array == np.floor(array)) and array.max() <= 65535
            if array.shape[0] != 1 or not whole or name[:2] in TYPES:  # the type files all have one geometry
                continue
            if reader is SimpleITKIOWithReorient and array.max() > 255:
                continue  # the reference wraps such labels; Isoline does not follow it there
            expected = f"{os.path.splitext(name)[0].replace('.', '_')}_{reader.__name__}.written.nii"
            try:
                reader().write_seg(array[0].astype(np.int64), os.path.join(out, expected), properties)
            except BaseException:
                continue
            lines.append(f"write {name} {reader.__name__} {expected}")
    with open(os.path.join(out, "manifest.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")
    total = sum(os.path.getsize(os.path.join(out, n)) for n in os.listdir(out))
    print(len(lines), "cases,", len(os.listdir(out)), "files,", total, "bytes")


if __name__ == "__main__":
    main()
