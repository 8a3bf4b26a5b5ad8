#!/usr/bin/env python3
"""The commands a user types, on small input: files, JSON and exit codes.

Usage: cli_test.py ISOLINE GOLDENS. Standard library only.
"""
import gzip
import json
import pathlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import unittest

ISOLINE = pathlib.Path(sys.argv[1]).resolve()
GOLDENS = pathlib.Path(sys.argv[2]).resolve()


def run(*arguments, code=0):
    result = subprocess.run([str(ISOLINE), *map(str, arguments)], capture_output=True, text=True, timeout=300)
    if result.returncode != code:
        raise AssertionError(f"exit code {result.returncode}, not {code}: {result.stderr}")
    return result


class Commands(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="isoline_cli_"))

    def tearDown(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def predict(self, golden, *extra):
        folder = GOLDENS / golden
        manifest = json.loads((folder / "manifest.json").read_text())
        tta = [] if manifest["tta"] else ["--disable_tta"]
        run("predict", "-i", folder / "images", "-o", self.dir, "-m", folder / "model", "-f", *manifest["folds"],
            "-step_size", manifest["step"], "-chk", manifest["checkpoint"], "-device", "cpu", "-npp", 2, "-nps", 2,
            "--disable_progress_bar", *tta, *extra)
        return folder

    def voxels(self, path):
        return gzip.decompress(pathlib.Path(path).read_bytes())[352:]

    def test_predict_takes_nnunets_options_and_leaves_its_files(self):
        folder = self.predict("plain3d_iso_regions", "--save_probabilities")
        names = {p.name for p in self.dir.iterdir()}
        self.assertEqual(names, {"case.nii.gz", "case.npz", "case.pkl", "dataset.json", "plans.json",
                                 "predict_from_raw_data_args.json"})
        self.assertEqual((self.dir / "plans.json").read_bytes(), (folder / "model" / "plans.json").read_bytes())
        with open(self.dir / "case.pkl", "rb") as f:
            properties = pickle.load(f)
        manifest = json.loads((folder / "manifest.json").read_text())
        self.assertEqual(properties["bbox_used_for_cropping"], manifest["crop"])
        self.assertEqual(set(properties), {"sitk_stuff", "spacing", "shape_before_cropping", "bbox_used_for_cropping",
                                           "shape_after_cropping_and_before_resampling"})
        wrong = sum(a != b for a, b in zip(self.voxels(self.dir / "case.nii.gz"), self.voxels(folder / "labels.nii.gz")))
        self.assertLessEqual(wrong, 1)

    def test_predict_continues_without_touching_what_is_there(self):
        self.predict("two_folds")
        (self.dir / "case.nii.gz").write_bytes(b"kept")
        self.predict("two_folds", "--continue_prediction")
        self.assertEqual((self.dir / "case.nii.gz").read_bytes(), b"kept")

    def test_predict_refuses_a_device_it_lacks(self):
        result = run("predict", "-i", ".", "-o", self.dir, "-m", ".", "-device", "cuda", code=5)
        self.assertIn("cuda", result.stderr)

    def test_phantom_segment_evaluate_overlay(self):
        made = json.loads(run("phantom", "--seed", 3, "--shape", "24,64,64", "--spacing", "8,5,5", "-o", self.dir,
                              "--json").stdout)["cases"][0]
        perfect = json.loads(run("evaluate", "-p", made["labels"], "-r", made["labels"], "--json").stdout)
        self.assertTrue(all(r["dice_kits"] == 1 for r in perfect["mean"].values()))
        labels = self.dir / "labels.nii.gz"
        report = json.loads(run("segment", "-m", GOLDENS / "plain3d_iso_regions" / "model", "-i", made["image"], "-o", labels,
                                "--step", 1, "--tta", "none", "--json").stdout)
        case = report["cases"][0]
        self.assertEqual(set(case["stages_s"]), {"read", "preprocess", "network", "export", "write"})
        self.assertGreater(case["windows"], 0)
        self.assertGreater(report["peak_rss_bytes"], 1 << 20)
        self.assertEqual(sum(case["label_voxels"].values()), 24 * 64 * 64)
        scores = json.loads(run("evaluate", "-p", labels, "-r", made["labels"], "--regions", "kidney=1,2,3;tumour=2",
                                "--json").stdout)
        self.assertEqual(set(scores["mean"]), {"kidney", "tumour"})
        picture = self.dir / "p.png"
        run("overlay", "-i", made["image"], "-s", labels, "-r", made["labels"], "-o", picture)
        self.assertEqual(picture.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")

    def test_evaluate_names_a_missing_prediction(self):
        (self.dir / "p").mkdir()
        (self.dir / "r").mkdir()
        shutil.copy(GOLDENS / "two_folds" / "labels.nii.gz", self.dir / "r" / "lonely.nii.gz")
        self.assertIn("lonely", run("evaluate", "-p", self.dir / "p", "-r", self.dir / "r", code=3).stderr)

    def test_both_empty_conventions_differ(self):
        golden = GOLDENS / "two_folds" / "labels.nii.gz"
        mean = json.loads(run("evaluate", "-p", golden, "-r", golden, "--regions", "none=77", "--json").stdout)["mean"]["none"]
        self.assertEqual((mean["dice_nnunet"], mean["dice_kits"]), (None, 1.0))

    def test_models_inspect_and_devices(self):
        info = json.loads(run("models", "inspect", GOLDENS / "residual3d_softmax" / "model", "--json").stdout)
        self.assertEqual(info["network"]["architecture"], "ResidualEncoderUNet")
        self.assertGreater(info["network"]["parameters"], 1000)
        names = [b["name"] for b in json.loads(run("devices", "--json").stdout)["backends"]]
        self.assertIn("reference", names)

    def test_threads_do_not_change_labels(self):
        folder = GOLDENS / "thick_5mm_regions"
        out = []
        for threads in (1, 3):
            path = self.dir / f"{threads}.nii.gz"
            run("segment", "-m", folder / "model", "-i", folder / "images", "-o", path.with_suffix("").with_suffix(""),
                "--threads", threads, "--quiet")
            out.append(self.voxels(path.with_suffix("").with_suffix("") / "case.nii.gz"))
        self.assertEqual(out[0], out[1])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=1)
