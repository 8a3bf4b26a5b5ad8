#!/usr/bin/env python3
"""isoline evaluate: figures known by hand, presets, lesions, other grids, impossible options.

Usage: evaluate_test.py ISOLINE. Standard library only.
"""
import json
import math
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

ISOLINE = pathlib.Path(sys.argv[1]).resolve()


def nifti(shape, spacing, boxes, origin=(0.0, 0.0, 0.0)):
    """uint8 labels [z, y, x]; boxes: (label, z0, z1, y0, y1, x0, x1), later ones over earlier ones."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)
    struct.pack_into("<8f", header, 76, 1.0, *spacing[::-1], 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352.0)
    struct.pack_into("<hh", header, 252, 0, 1)
    for axis in range(3):
        row = [0.0, 0.0, 0.0, origin[axis]]
        row[axis] = spacing[2 - axis]
        struct.pack_into("<4f", header, 280 + 16 * axis, *row)
    header[344:348] = b"n+1\0"
    labels = bytearray(math.prod(shape))
    for label, z0, z1, y0, y1, x0, x1 in boxes:
        for z in range(z0, z1):
            for y in range(y0, y1):
                start = (z * shape[1] + y) * shape[2]
                labels[start + x0:start + x1] = bytes([label]) * (x1 - x0)
    return bytes(header) + bytes(labels)


CUBE = (2, 5, 15, 5, 15, 5, 15)
SHIFTED = (2, 5, 15, 5, 15, 6, 16)


class Evaluate(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="isoline_evaluate_"))

    def tearDown(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def file(self, name, *boxes, shape=(20, 20, 20), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
        path = self.dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(nifti(shape, spacing, boxes, origin))
        return path

    def run_it(self, *options, code=0):
        result = subprocess.run([str(ISOLINE), "evaluate", *map(str, options)], capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def json_of(self, reference, prediction, *options):
        return json.loads(self.run_it("-r", reference, "-p", prediction, "--json", *options).stdout)

    def test_shifted_cube(self):
        r, p = self.file("r.nii", CUBE), self.file("p.nii", SHIFTED)
        for tolerance, want in ((0.99, 0.66615), (1, 1.0)):
            found = self.json_of(r, p, "--tolerance-mm", tolerance)["cases"][0]["regions"]["2"]
            self.assertAlmostEqual(found["surface_dice_deepmind"], want, 5)
        self.assertEqual(found["dice_kits"], 0.9)
        self.assertEqual(found["hd95_mm"], 1)
        self.assertAlmostEqual(found["reference_surface_mm2"], 564.0996, 4)
        self.assertEqual(found["reference_mm3"], 1000)
        self.assertNotIn("surface_dice_kits", self.json_of(r, p, "--surface")["mean"]["2"])
        self.assertNotIn("hd95_median_mm", self.json_of(r, p)["mean"]["2"])

    def test_kits23_preset_with_lesions_and_empty_maps(self):
        for name, reference, prediction in (("a", [CUBE], [SHIFTED]), ("b", [], []), ("c", [CUBE, (2, 0, 2, 0, 2, 0, 2)], [])):
            self.file(f"r/{name}.nii", *reference)
            self.file(f"p/{name}.nii", *prediction)
        out = self.json_of(self.dir / "r", self.dir / "p", "--preset", "kits23", "--lesions", "tumor")
        self.assertEqual(list(out["mean"]), ["kidney_and_mass", "mass", "tumor"])
        tumor = out["mean"]["tumor"]
        self.assertAlmostEqual(tumor["dice_kits"], (0.9 + 1 + 0) / 3)
        self.assertAlmostEqual(tumor["dice_nnunet"], (0.9 + 0) / 2)
        self.assertAlmostEqual(tumor["surface_dice_kits"], (1 + 1 + 0) / 3)
        self.assertAlmostEqual(tumor["surface_dice_deepmind"], (1 + 0) / 2)
        self.assertEqual((tumor["hd95_median_mm"], tumor["hd95_infinite"], tumor["hd95_undefined"]), (1, 1, 1))
        self.assertEqual([c["regions"]["tumor"]["hd95_state"] for c in out["cases"]], ["finite", "undefined", "infinite"])
        lesions = out["lesions"]["tumor"]
        self.assertEqual((lesions["reference"], lesions["found"], lesions["false_positive"]), (3, 1, 0))
        self.assertIn("26-connected", out["definitions"]["lesions"])
        self.assertIn("1.1498", out["definitions"]["surface_dice"])
        table = self.run_it("-r", self.dir / "r", "-p", self.dir / "p", "--preset", "kits23", "--lesions", "tumor").stdout
        for text in ("surface Dice", "HD95, mm", "volume difference, mm3", "lesions: tumor", "google-deepmind/surface-distance"):
            self.assertIn(text, table)

    def test_small_lesions_and_coverage(self):
        r = self.file("r.nii", CUBE, (2, 0, 1, 0, 1, 0, 1))
        p = self.file("p.nii", (2, 5, 15, 5, 15, 12, 20), (2, 0, 1, 18, 19, 18, 19))
        count = lambda *o: tuple(self.json_of(r, p, "--lesions", "2", *o)["lesions"]["2"][k] for k in ("reference", "found", "false_positive"))
        self.assertEqual(count(), (2, 1, 1))
        self.assertEqual(count("--min-lesion-mm3", 2), (1, 1, 0))
        self.assertEqual(count("--min-covered", 0.5), (2, 0, 1))

    def test_other_grids_are_refused_with_both_values(self):
        r = self.file("r.nii", CUBE)
        for changed, words in ((dict(spacing=(1.0, 1.0, 2.0)), ("spacing", "1 1 2", "1 1 1")), (dict(origin=(0.0, 0.0, 3.0)), ("origin", "0 0 3")),
                               (dict(shape=(20, 20, 21)), ("shape", "20x20x21", "20x20x20"))):
            error = self.run_it("-r", r, "-p", self.file("p.nii", CUBE, **changed), code=2).stderr
            for word in (*words, "p.nii", "r.nii"):
                self.assertIn(word, error)
        moved = self.file("p.nii", CUBE, origin=(0.0, 0.0, 3.0))
        self.assertEqual(self.json_of(r, moved, "--ignore-origin")["mean"]["2"]["dice_kits"], 1)

    def test_impossible_options(self):
        r = self.file("r.nii", CUBE)
        for options, code, word in ((["--preset", "kits"], 3, "kits23"), (["--tolerance-mm", "1,2"], 2, "2 tolerances for 1 regions"),
                                    (["--tolerance-mm", "-1"], 2, "--tolerance-mm"), (["--tolerance-mm", "x"], 2, "--tolerance-mm"),
                                    (["--lesions", "tumour"], 2, "Regions: 2"), (["--min-covered", "2"], 2, "--min-covered"),
                                    (["--preset", "kits23", "--regions", "a=1"], 2, "--regions")):
            self.assertIn(word, self.run_it("-r", r, "-p", r, *options, code=code).stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
