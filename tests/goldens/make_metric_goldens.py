"""Writes tests/goldens/metrics/goldens.json: small label maps and what the reference implementations say of them.

    PYTHONPATH=KITS23_CLONE python3 tests/goldens/make_metric_goldens.py

References: google-deepmind/surface-distance 0.1 (surfaces, 3-D and 2-D), neheller/kits23 (Dice and surface Dice by the
challenge's conventions), nnunetv2 2.8.1 compute_metrics (voxel counts, Dice, ignore label), scipy.ndimage.label
(lesions). Maps are not stored but drawn from whole-number recipes, which src/isoline/metrics/golden_test.cpp draws
too; the hash tells whether both drew the same. Deterministic; figures have 13 digits, tolerances all 17.
"""
import json
import math
import pathlib
import random
import warnings

import numpy as np
from scipy import ndimage

warnings.filterwarnings("ignore")
np.Inf = np.inf  # surface-distance 0.1 is older than NumPy 2
from kits23.configuration.labels import HEC_SD_TOLERANCES_MM, KITS_HEC_LABEL_MAPPING  # noqa: E402
from kits23.evaluation.metrics import compute_metrics_for_label  # noqa: E402
from nnunetv2.evaluation.evaluate_predictions import compute_metrics  # noqa: E402
import surface_distance  # noqa: E402
from surface_distance import lookup_tables  # noqa: E402

OUT = pathlib.Path(__file__).parent / "metrics" / "goldens.json"
REGIONS = {**KITS_HEC_LABEL_MAPPING, "outside": (0, 3)}
SPACINGS = [(1, 1, 1), (1, 2, 3), (2, 1, 1), (5.0, 0.78125, 0.78125), (5.0, 0.8105469, 0.8105469), (2.5, 0.6894531, 0.6894531),
            (2.0, 0.9238281, 0.9238281), (0.5, 0.5, 0.5), (3, 0.5, 2), (0.7, 0.7, 0.7)]
MASK64 = 2**64 - 1


def draw(shape, recipe):
    """Later steps paint over earlier ones. Coordinates are [z, y, x], boxes half-open."""
    m = np.zeros(shape, np.uint16)
    z, y, x = np.indices(shape)
    for step in recipe:
        kind, label, *a = step
        if kind == "box":
            m[a[0]:a[1], a[2]:a[3], a[4]:a[5]] = label
        elif kind == "ball":  # a[3] dz^2 + a[4] dy^2 + a[5] dx^2 <= a[6]
            m[a[3] * (z - a[0])**2 + a[4] * (y - a[1])**2 + a[5] * (x - a[2])**2 <= a[6]] = label
        elif kind == "noise":  # a[0] seed, a[1] of 256
            state, flat = a[0], m.reshape(-1)
            for i in range(flat.size):
                state = (state * 6364136223846793005 + 1442695040888963407) & MASK64
                if state >> 56 < a[1]:
                    flat[i] = label
        elif kind == "checker":  # every voxel whose coordinates add up to an even number
            m[(z + y + x) % 2 == 0] = label
    return m


def fnv(m):
    h = 14695981039346656037
    for v in m.reshape(-1).tolist():
        h = ((h ^ v) * 1099511628211) & MASK64
    return format(h, "016x")


class Arrays:
    """A reader for compute_metrics that hands out what it is given as a file name."""
    @staticmethod
    def read_seg(array):
        return array, {}


def num(v):
    v = float(v)
    if math.isnan(v):
        return "nan"
    if math.isinf(v):
        return "inf"
    return float(f"{v:.13g}")


def average(d):
    if not len(d["distances_gt_to_pred"]) or not len(d["distances_pred_to_gt"]):
        return ["nan", "nan"]
    return [num(v) for v in surface_distance.compute_average_surface_distance(d)]


def region_figures(ref, pred, name, spacing, ignore, rng):
    labels = REGIONS[name]
    counts = compute_metrics(ref, pred, Arrays, [labels], ignore)["metrics"][labels]
    keep = np.ones(ref.shape, bool) if ignore is None else ref != ignore
    gt, pr = np.isin(ref, labels) & keep, np.isin(pred, labels) & keep
    planar = ref.shape[0] == 1
    d = surface_distance.compute_surface_distances(gt[0] if planar else gt, pr[0] if planar else pr,
                                                   spacing[1:] if planar else spacing)
    seen = np.unique(np.concatenate([d["distances_gt_to_pred"], d["distances_pred_to_gt"], [0.0]]))
    seen = [float(v) for v in seen[np.isfinite(seen)]]
    # Ties: distances that occur, exactly and (where no other lies within rounding) a bit less; then round numbers.
    tolerances = [0.0, 1.0, float(spacing[1]), HEC_SD_TOLERANCES_MM.get(name, 2.0)]
    for t in rng.sample(seen, min(3, len(seen))):
        alone = all(v == t or abs(v - t) > 1e-9 * t for v in seen)
        tolerances += [t, float(np.nextafter(t, 0))] if alone else [t * (1 + 1e-9)]
    areas = [float(np.sum(d["surfel_areas_gt"])), float(np.sum(d["surfel_areas_pred"]))]
    out = {
        "counts": [int(counts[k]) for k in ("TP", "FP", "FN", "TN")], "dice": num(counts["Dice"]), "areas": [num(a) for a in areas],
        "mean": average(d), "hd95": num(surface_distance.compute_robust_hausdorff(d, 95)), "tolerances": tolerances,
        "surface_dice": [num(surface_distance.compute_surface_dice_at_tolerance(d, t)) if sum(areas) else "nan" for t in tolerances]}
    if not planar and ignore is None:
        dc, sd = compute_metrics_for_label(pred, ref, labels, spacing, HEC_SD_TOLERANCES_MM.get(name, 2.0))
        out["kits"] = [num(dc), num(sd)]
    return out


def lesion_figures(ref, pred, ignore):
    keep = np.ones(ref.shape, bool) if ignore is None else ref != ignore
    gt, pr = (ref == 2) & keep, (pred == 2) & keep
    lesions, n = ndimage.label(gt, np.ones((3, 3, 3)))
    predicted, m = ndimage.label(pr, np.ones((3, 3, 3)))
    return {"found": [int(pr[lesions == i].any()) for i in range(1, n + 1)],
            "voxels": [int((lesions == i).sum()) for i in range(1, n + 1)],
            "predicted": m, "false_positive": sum(not gt[predicted == i].any() for i in range(1, m + 1))}


def case(name, shape, spacing, reference, prediction, rng, ignore=None):
    ref, pred = draw(shape, reference), draw(shape, prediction)
    return {"name": name, "shape": list(shape), "spacing": [float(s) for s in spacing], "ignore": ignore,
            "reference": reference, "prediction": prediction, "hash": [fnv(ref), fnv(pred)],
            "regions": {r: region_figures(ref, pred, r, spacing, ignore, rng) for r in REGIONS},
            "lesions": lesion_figures(ref, pred, ignore)}


def blobs(shape, rng, count):
    """Kidney-like balls with tumours and cysts in them; the prediction moves, drops and adds some."""
    reference, prediction = [], []
    for _ in range(count):
        label, c = rng.choice([1, 1, 2, 3]), [rng.randrange(n) for n in shape]
        weight, r = [rng.randint(1, 4) for _ in range(3)], rng.randint(0, 60)
        reference.append(["ball", label, *c, *weight, r])
        kind = rng.random()
        if kind < .25:
            prediction.append(["ball", label, *c, *weight, r])
        elif kind < .85:
            prediction.append(["ball", label, *[v + rng.randint(-1, 1) for v in c], *weight, max(0, r + rng.randint(-8, 8))])
        if rng.random() < .2:
            prediction.append(["ball", rng.choice([1, 2, 3]), *[rng.randrange(n) for n in shape], 1, 1, 1, rng.randint(0, 6)])
    if rng.random() < .3:
        prediction.append(["noise", rng.choice([0, 1, 2]), rng.getrandbits(60), rng.choice([1, 8, 40])])
    return reference, prediction


def cases():
    rng = random.Random(20261124)
    spacing = lambda: rng.choice(SPACINGS) if rng.random() < .8 else tuple(round(rng.uniform(.3, 6), rng.choice([1, 4, 9])) for _ in range(3))
    cube = ["box", 2, 3, 13, 3, 13, 3, 13]
    big = (18, 17, 19)
    edge = [
        ("cube against itself", big, [cube], [cube]),
        ("cube shifted by one", big, [cube], [["box", 2, 4, 14, 3, 13, 3, 13]]),
        ("voxel against itself", (3, 3, 3), [["box", 2, 1, 2, 1, 2, 1, 2]], [["box", 2, 1, 2, 1, 2, 1, 2]]),
        ("voxels at opposite corners", (5, 6, 7), [["box", 2, 0, 1, 0, 1, 0, 1]], [["box", 2, 4, 5, 5, 6, 6, 7]]),
        ("both empty", (4, 5, 6), [], []),
        ("reference empty", (6, 5, 6), [], [["box", 2, 1, 3, 1, 3, 1, 3]]),
        ("prediction empty", (6, 5, 6), [["box", 2, 1, 3, 1, 3, 1, 3]], []),
        ("full against full", (4, 5, 6), [["box", 2, 0, 4, 0, 5, 0, 6]], [["box", 2, 0, 4, 0, 5, 0, 6]]),
        ("full against voxel", (4, 5, 6), [["box", 2, 0, 4, 0, 5, 0, 6]], [["box", 2, 2, 3, 2, 3, 2, 3]]),
        ("box with a hole", big, [cube], [cube, ["box", 0, 6, 9, 6, 9, 6, 9]]),
        ("plates at the border", (6, 7, 70), [["box", 2, 0, 1, 0, 7, 0, 70]], [["box", 2, 5, 6, 0, 7, 0, 70]]),
        ("lines across words", (2, 3, 140), [["box", 2, 0, 1, 1, 2, 0, 140]], [["box", 2, 0, 1, 1, 2, 60, 70]]),
        ("ends of a long row", (2, 2, 200), [["box", 2, 0, 1, 0, 1, 0, 1]], [["box", 2, 0, 1, 0, 1, 199, 200]]),
        ("checkerboard", (5, 6, 7), [["checker", 2]], [["box", 2, 0, 5, 0, 6, 0, 7]]),
        ("checkerboard against voxel", (5, 6, 7), [["checker", 2]], [["box", 2, 2, 3, 2, 3, 2, 3]]),
        ("half a voxel's worth", (8, 8, 8), [["box", 1, 0, 4, 0, 8, 0, 8]], [["box", 1, 0, 8, 0, 4, 0, 8]]),
    ]
    for name, shape, reference, prediction in edge:
        for s in ((1, 1, 1), (5.0, 0.78125, 0.78125), (1, 2, 3)):
            yield case(name, shape, s, reference, prediction, rng)
    for i in range(60):
        shape = tuple(rng.randint(2, 6) for _ in range(3))
        noise = lambda: [["noise", l, rng.getrandbits(60), rng.choice([2, 20, 60, 128])] for l in (1, 2, 3)]
        yield case(f"noise {i}", shape, spacing(), noise(), noise(), rng, rng.choice([None, None, 3]))
    for i in range(110):
        shape = (rng.randint(2, 14), rng.randint(5, 20), rng.choice([7, 16, 17, 33, 63, 64, 65, 80]))
        yield case(f"blobs {i}", shape, spacing(), *blobs(shape, rng, rng.randint(1, 7)), rng, rng.choice([None, None, None, 3]))
    for i in range(30):
        shape = (1, rng.randint(2, 24), rng.choice([3, 16, 31, 64, 90]))
        yield case(f"slice {i}", shape, spacing(), *blobs(shape, rng, rng.randint(1, 6)), rng)


def main():
    rng = random.Random(1)
    table = []
    for s in [(1, 1, 1), (5.0, 0.78125, 0.78125), (1, 2, 3)] + [tuple(rng.uniform(.1, 7) for _ in range(3)) for _ in range(2)]:
        area = lookup_tables.create_table_neighbour_code_to_surface_area(s)
        table.append({"spacing": list(map(float, s)), "areas": [num(v) for v in area]})
    found = list(cases())
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in found)
    regions = json.dumps({k: list(v) for k, v in REGIONS.items()})
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text('{"regions":%s,\n"surfels":[%s],\n"cases":[\n%s\n]}\n' % (
        regions, ",\n".join(json.dumps(t, separators=(",", ":")) for t in table), lines))
    print(len(found), "cases,", OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
