#!/usr/bin/env python3
"""Official nnU-Net on a CPU, stage by stage; one JSON object on standard output.

    official_stages.py stages  --model FOLDER --image FILE --logits FILE.npy [--repeat 3] [--threads 2]
        preprocess_s: array in memory -> preprocessed array;  export_s: logits array -> label array in the scan's geometry;
        read_s, write_s: the NIfTI files beside them;  peak_rss_bytes of this process after one pass of everything but the network.
    official_stages.py network --model FOLDER [--windows 4] [--threads 2]
        window_s: one window through the network and into the accumulators (no mirroring), the official sliding window's own code.
    official_stages.py logits  --model FOLDER --image FILE -o FILE.npy
        smooth synthetic logits (float16) of the shape this scan has after preprocessing, for both programs to export.
"""
import argparse
import json
import os
import resource
import sys
import tempfile
import time

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "/nonexistent")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("stages", "network", "logits"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--image")
    parser.add_argument("--logits")
    parser.add_argument("-o", "--output")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


args = arguments()
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
os.environ["nnUNet_def_n_proc"] = str(args.threads)

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape as to_labels
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

torch.set_num_threads(args.threads)


def timed(function):
    start = time.perf_counter()
    out = function()
    return out, time.perf_counter() - start


def load_predictor():
    sys.stdout = sys.stderr  # the official code prints
    predictor = nnUNetPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(args.model, ("0",))
    sys.stdout = sys.__stdout__
    return predictor


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def stages():
    predictor = load_predictor()
    plans, configuration, dataset = predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    reader = plans.image_reader_writer_class()
    preprocessor = configuration.preprocessor_class(verbose=False)
    out = {"preprocess_s": [], "export_s": [], "read_s": [], "write_s": []}
    logits = np.load(args.logits)
    for _ in range(args.repeat):
        (image, properties), seconds = timed(lambda: reader.read_images([args.image]))
        out["read_s"].append(seconds)
        (data, _, properties), seconds = timed(lambda: preprocessor.run_case_npy(image, None, properties, plans, configuration, dataset))
        out["preprocess_s"].append(seconds)
        assert data.shape[1:] == logits.shape[1:], (data.shape, logits.shape)
        out["preprocessed_shape"], out["image_shape"] = list(data.shape), list(image.shape)
        del data, image
        labels, seconds = timed(lambda: to_labels(logits, plans, configuration, predictor.label_manager, properties, num_threads_torch=args.threads))
        out["export_s"].append(seconds)
        with tempfile.TemporaryDirectory() as folder:
            out["write_s"].append(timed(lambda: reader.write_seg(labels, os.path.join(folder, "out.nii.gz"), properties))[1])
    out["peak_rss_bytes"] = peak_rss_bytes()
    return out


def network():
    predictor = load_predictor()
    # a volume of exactly one window, so that each call of the official loop is one forward, one product and two additions
    patch = predictor.configuration_manager.patch_size
    volume = torch.randn((1, *patch))
    windows = []
    for _ in range(args.windows + 1):
        windows.append(timed(lambda: predictor.predict_sliding_window_return_logits(volume))[1])
    return {"window_s": windows[1:], "first_window_s": windows[0], "peak_rss_bytes": peak_rss_bytes()}


def make_logits():
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
    predictor = load_predictor()
    image, properties = predictor.plans_manager.image_reader_writer_class().read_images([args.image])
    from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
    cropped, _, _ = crop_to_nonzero(image)
    shape = [int(s) for s in compute_new_shape(cropped.shape[1:], properties["spacing"], predictor.configuration_manager.spacing)]
    generator = torch.Generator().manual_seed(3)
    heads = predictor.label_manager.num_segmentation_heads
    coarse = torch.randn((1, heads, *[max(2, s // 24) for s in shape]), generator=generator) * 6 - 4
    smooth = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=False)[0]
    np.save(args.output, smooth.half().numpy())
    return {"shape": [heads, *shape]}


if __name__ == "__main__":
    print(json.dumps({"stages": stages, "network": network, "logits": make_logits}[args.what]()))
