"""Writes tests/fuzz/corpus/*: seeds from the stored goldens, and requests to the server. Needs Python only."""
import gzip
import json
import pathlib
import struct
import zipfile
import zlib

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


# What clients send to the server.

def tensor(name="A", datatype="FP32", shape=(1, 2), **more):
    return {"name": name, "datatype": datatype, "shape": list(shape), **more}


def rest():
    whole = {"id": "7", "parameters": {"priority": 1, "timeout": 5, "binary_data_output": True, "sequence_id": 0},
             "inputs": [tensor(data=[[0.5, -1e3]]), tensor("B", shape=(1, 2, 1), data=[1, 2])],
             "outputs": [{"name": "A", "parameters": {"binary_data": True, "classification": 0}}, {"name": "B"}]}
    # The first byte chooses the datatype (twice its number, odd with a batch axis) and the second the header.
    write("rest", "whole", bytes([23, 0]) + json.dumps(whole).encode())
    for i, name in enumerate(["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"]):
        data = ["a\\u00e4\n", ""] if name == "BYTES" else [True, False] if name == "BOOL" else [1, 0]
        write("rest", f"json_{name}", bytes([2 * i + 1, 0]) + json.dumps({"inputs": [tensor(datatype=name, data=data)]}).encode())
    raw = struct.pack("<2f", 1, 2)
    head = json.dumps({"inputs": [tensor(parameters={"binary_data_size": 8})], "parameters": {"binary_data_output": True}}).encode()
    write("rest", "binary", bytes([23, 1]) + head + raw)
    words = struct.pack("<I", 2) + b"ab" + struct.pack("<I", 0)
    head = json.dumps({"inputs": [tensor(datatype="BYTES", parameters={"binary_data_size": len(words)})]}).encode()
    write("rest", "binary_words", bytes([27, 1]) + head + words)
    write("rest", "raw", bytes([23, 4]) + raw)
    write("rest", "index", bytes([0, 0]) + b'{"ready":true}')
    write("rest", "load", bytes([0, 0]) + b'{"parameters":{"config":"{\\"max_batch_size\\":4}","file:1/model.onnx":"AA=="}}')


def varint(n):
    out = b""
    n &= (1 << 64) - 1
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def infer_message(datatype="FP32", contents=b"", raw=None, **more):
    parameter = field(1, "priority") + field(2, field(2, 1))
    message = field(1, "m") + field(2, "1") + field(3, "id") + field(4, parameter)
    message += field(5, field(1, "A") + field(2, datatype) + field(3, varint(1) + varint(2)) + (field(5, contents) if contents else b""))
    message += field(6, field(1, "A") + field(2, field(1, "classification") + field(2, field(2, 0))))
    return message + (field(7, raw) if raw is not None else b"")


def protobuf():
    packed = varint(1) + varint(2)
    write("protobuf", "raw", infer_message(raw=struct.pack("<2f", 1, 2)))
    for datatype, number, value in (("BOOL", 1, packed), ("INT8", 2, packed), ("INT64", 3, packed), ("UINT32", 4, packed), ("UINT64", 5, packed),
                                    ("FP32", 6, struct.pack("<2f", 1, 2)), ("FP64", 7, struct.pack("<2d", 1, 2))):
        write("protobuf", datatype, infer_message(datatype, field(number, value)))
    write("protobuf", "BYTES", infer_message("BYTES", field(8, "ab") + field(8, "")))
    write("protobuf", "unpacked", infer_message("INT32", field(2, 1) + field(2, -2)))
    write("protobuf", "name", field(1, "m") + field(2, "1"))
    write("protobuf", "index", field(2, 1))
    write("protobuf", "load", field(2, "m") + field(3, field(1, "config") + field(2, field(3, "{}"))) + field(3, field(1, "file:x") + field(2, field(4, "x"))))
    write("protobuf", "timeout", b"100m")


def http():
    def post(body, headers=b"", path=b"/v2/models/m/infer"):
        return b"POST " + path + b" HTTP/1.1\r\nHost: h\r\n" + headers + b"\r\n" + body
    length = b"Content-Length: %d\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n"
    get = b"GET /v2/health/ready?a=b%20c HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip;q=0.5, deflate\r\n\r\n"
    plain = json.dumps({"inputs": []}).encode()
    requests = {
        "get": get, "pipelined": get + get + post(b"abc", length % 3) + get, "post": post(plain, length % len(plain)),
        "chunked": post(b"5;name=value\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", chunked) + get,
        "continue": post(b"abc", length % 3 + b"Expect: 100-continue\r\n"), "both": post(b"0\r\n\r\n", length % 5 + chunked) + get,
        "old": b"GET http://h/v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get, "close": get[:-2] + b"Connection: close\r\n\r\n" + get,
        "header_length": post(plain, length % len(plain) + b"Inference-Header-Content-Length: 3\r\n"),
    }
    for name, packed in (("gzip", gzip.compress(plain, mtime=0)), ("deflate", zlib.compress(plain))):
        requests[name] = post(packed, length % len(packed) + b"Content-Encoding: " + name.encode() + b"\r\n")
        write("http", f"inflate_{name}", bytes([3 if name == "gzip" else 1]) + packed)
    write("http", "inflate_bomb", bytes([3]) + gzip.compress(bytes(1 << 20), mtime=0))
    for i, (name, request) in enumerate(requests.items()):
        write("http", name, bytes([4 * i]) + request)


def http2():
    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def literal(name, value):
        return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value

    def message(text, compressed=0):
        return bytes([compressed]) + struct.pack(">I", len(text)) + text
    fields = (literal(b":method", b"POST") + literal(b":scheme", b"http") + literal(b":path", b"/inference.GRPCInferenceService/ModelInfer") +
              literal(b":authority", b"h") + literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers") +
              literal(b"grpc-timeout", b"5S") + literal(b"grpc-encoding", b"gzip"))
    headers = frame(1, 4, 1, fields)
    data = infer_message(raw=bytes(8))
    seeds = {
        "call": headers + frame(0, 1, 1, message(data)), "cut": headers + frame(0, 0, 1, message(data)[:7]) + frame(0, 1, 1, message(data)[7:]),
        "gzip": headers + frame(0, 1, 1, message(gzip.compress(data, mtime=0), 1)), "two": headers + frame(0, 0, 1, message(b"a") + message(b"b")) + frame(0, 1, 1),
        "streams": headers + frame(0, 1, 1, message(b"a")) + frame(1, 5, 3, fields) + frame(1, 4, 5, fields) + frame(3, 0, 5, bytes(4)),
        "continuation": frame(1, 0, 1, fields[:40]) + frame(9, 0, 1, fields[40:90]) + frame(9, 4, 1, fields[90:]) + frame(0, 1, 1, message(b"a")),
        "control": frame(4, 0, 0, struct.pack(">HI", 4, 10) + struct.pack(">HI", 5, 16384)) + frame(4, 1, 0) + frame(6, 0, 0, bytes(8)) +
        frame(8, 0, 0, struct.pack(">I", 1000)) + headers + frame(0, 1, 1, message(bytes(100))) + frame(8, 0, 1, struct.pack(">I", 50)),
        "trailers": headers + frame(0, 0, 1, message(b"a")) + frame(1, 5, 1, literal(b"x", b"y")), "goaway": headers + frame(7, 0, 0, bytes(8)),
        "padded": headers + frame(0, 9, 1, b"\3" + message(b"abc") + bytes(3)), "get": frame(1, 5, 1, fields.replace(b"POST", b"GETT")),
    }
    for i, (name, seed) in enumerate(seeds.items()):
        for answer in (1, 3, 7):
            write("http2", f"{name}_{answer}", bytes([i * 3, answer]) + seed)
    write("http2", "preface", bytes([5, 2]) + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))


def config():
    write("config", "whole", b"""name: "m" platform: "isoline_identity" backend: 'x' max_batch_size: 8 default_model_filename: "m.onnx"
version_policy { specific { versions: [1, 3] } } # comment
input [ { name: "A" data_type: TYPE_FP32 dims: [ -1, 3 ] format: FORMAT_NONE optional: false } ] output < name: "B" data_type: TYPE_STRING dims: 1 >
dynamic_batching { preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 100 priority_levels: 2 default_priority_level: 2
 default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 } priority_queue_policy { key: 1 value { max_queue_size: 7 } } }
instance_group [ { kind: KIND_AUTO count: 2 gpus: [0] }, { name: "x" } ] parameters { key: "p" value { string_value: "v\\n" } }
model_warmup { name: "w" count: 2 inputs { key: "A" value { data_type: TYPE_FP32 dims: [4, 3] random_data: true } } }""")
    write("config", "all", b'version_policy { all {} } parameters: [{ key: "a" value: { string_value: "b" "c" } }];')
    write("config", "latest", b"version_policy: { latest: { num_versions: 2 } } max_batch_size: 1e3")
    write("config", "refused", b"sequence_batching {} ensemble_scheduling { step: [] } response_cache { enable: true }")
    write("config", "json", json.dumps({
        "name": "m", "max_batch_size": "4", "input": [{"name": "A", "data_type": "TYPE_INT64", "dims": ["-1", 2]}],
        "output": [{"name": "B", "data_type": "TYPE_BOOL", "dims": []}], "dynamic_batching": {"priority_queue_policy": {"1": {"max_queue_size": 3}},
        "priority_levels": 1, "default_priority_level": 1}, "parameters": {"a": {"string_value": "b"}}}).encode())


if __name__ == "__main__":
    rest()
    protobuf()
    http()
    http2()
    config()
    plans()
    image()
    checkpoint()
