"""Writes tests/fuzz/corpus/{plans,checkpoint,image}: seeds from the stored goldens. Needs Python only."""
import json
import pathlib
import zipfile

HERE = pathlib.Path(__file__).parent
GOLDENS = HERE.parent / "goldens"


def write(folder, name, content):
    target = HERE / "corpus" / folder
    target.mkdir(parents=True, exist_ok=True)
    (target / name).write_bytes(content)


def compact(path):
    return json.dumps(json.loads(path.read_text()), separators=(",", ":")).encode()


def plans():
    for folder in sorted(GOLDENS.glob("network/*")) + sorted(GOLDENS.glob("parity/*/model")):
        name = folder.parent.name if folder.name == "model" else folder.name
        write("plans", name, b"p" + compact(folder / "plans.json") + b"\0" + compact(folder / "dataset.json"))
    write("plans", "bundle", b"b" + json.dumps({
        "isoline_model": 1, "name": "n", "onnx": "m.onnx", "reader": "NibabelIO", "transpose_forward": [2, 0, 1],
        "transpose_backward": [1, 2, 0], "spacing_mm": [1, 0.5, 0.5], "patch_size": [16, 16, 16],
        "channels": [{"name": "CT", "normalization": "ct", "mean": 1, "std": 2, "percentile_00_5": -3,
                      "percentile_99_5": 4}, {"name": "MR", "normalization": "zscore", "use_mask": True}],
        "resampling": {"data": {"function": "spline", "order": 3, "force_separate_z": None},
                       "segmentation": {"function": "spline", "order": 1, "force_separate_z": False},
                       "probabilities": {"function": "torch"}},
        "mirror_axes": [0, 1], "labels": {"background": 0, "a": [1, 2], "b": 2, "ignore": 3},
        "regions_class_order": [1, 2], "previous_stage": "low"}).encode())


def checkpoint():
    for path in sorted(GOLDENS.glob("checkpoint/*.pth")):
        write("checkpoint", path.stem + ".zip", b"z" + path.read_bytes())
        if zipfile.is_zipfile(path) and path.stem != "no_checksums":
            with zipfile.ZipFile(path) as z:
                for name in z.namelist():
                    if name.endswith("/data.pkl"):
                        write("checkpoint", path.stem + ".pickle", b"p" + z.read(name))
                        write("checkpoint", path.stem + ".archived", b"k" + z.read(name))
    for path in sorted(GOLDENS.glob("checkpoint/*.pkl")):
        write("checkpoint", path.stem, b"p" + path.read_bytes())


def image():
    for i, path in enumerate(sorted(p for p in GOLDENS.glob("image/decode/*") if p.suffix != ".npy")):
        write("image", path.name, bytes([i * 7 % 108]) + path.read_bytes())


if __name__ == "__main__":
    plans()
    image()
    checkpoint()
