#!/usr/bin/env python3
"""Isoline's server beside a real tritonserver 2.51 on one machine: the same requests, then the same load.

    serve_beside_triton.py --isoline ISOLINE --clients FOLDER --triton FOLDER -o docs/measurements/NAME [--commit C] [--repeats 3]

FOLDER: where wheels are installed once (clients: tests/serve/clients.py; triton: nvidia-pytriton 0.7.0, which holds the server and its
python backend). Both serve an identity model of 16 float32 without dynamic batching, one instance, so the clock sees the server and not
a network. Triton's runs in its python backend (the wheel has no other): that is part of its figures. Load: perf_analyzer 2.41, closed
loop, alternating between the servers, its own stability rule and warm-up; median of the repeats, spread beside.
Exit code 1 if an answer differs without a known reason, or if a bar is missed.
"""
import argparse
import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/serve"))
import clients  # noqa: E402

TRITON = ["nvidia-pytriton==0.7.0", "numpy==1.26.4"]
MODEL = """
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        return [utils.InferenceResponse([utils.Tensor("OUTPUT0", utils.get_input_tensor_by_name(r, "INPUT0").as_numpy())]) for r in requests]
"""
CONFIG = """
{platform}
max_batch_size: 8
input [ {{ name: "INPUT0" data_type: {type} dims: [ {dims} ] }} ]
output [ {{ name: "OUTPUT0" data_type: {type} dims: [ {dims} ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""
MODELS = {"simple": ("TYPE_FP32", 16), "bytes": ("TYPE_STRING", 2), "ints": ("TYPE_INT32", 2)}

# Where the servers may differ, and why. Anything else that differs fails.
CLIENTS_FAULT = "the request is wrong, so 400; Triton calls it an internal error"
REASONS = {
    "REST: unknown model ready": "404 as for every other path of an unknown model; clients look for 200 only",
    "REST: load unknown": "404: the model is not there; Triton calls it an internal error",
    "REST: int too large": "refused; Triton wraps the number around silently",
    "REST: shape overflow": "refused; the request ends tritonserver",
    "REST: unknown coding": "415 is HTTP's own status for it",
    "REST: sequence": "sequences are not served and refused by name; Triton ignores them for a model without sequences",
    "gRPC: more raw than inputs": "refused; Triton ignores the rest",
    **{f"REST: {case}": CLIENTS_FAULT for case in ("negative dimension", "too few values", "too many values", "text for a number", "no shape",
                                                  "no datatype", "not JSON", "JSON array", "binary size negative")},
}


def write_models(root, triton):
    for name, (type, dims) in MODELS.items():
        version = root / name / "1"
        version.mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(CONFIG.format(platform='backend: "python"' if triton else 'platform: "isoline_identity"',
                                                                type=type, dims=dims))
        if triton:
            (version / "model.py").write_text(MODEL)


def wait_ready(port, process, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if process.poll() is not None:
            raise SystemExit(f"a server ended with {process.returncode}")
        try:
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            c.request("GET", "/v2/health/ready")
            if c.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("a server was not ready in time")


def triton_python(folder):
    stamp = folder / "stamp"
    if not stamp.exists() or stamp.read_text() != repr(TRITON):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([folder / "venv/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q", *TRITON], check=True)
        stamp.write_text(repr(TRITON))
    return next(folder.glob("venv/lib/python3*/site-packages"))


class Triton:
    """A tritonserver that is started again when a request has ended it; how often is counted."""
    name, http, grpc = "tritonserver", 18000, 18001

    def __init__(self, folder):
        self.site, self.folder, self.process, self.restarts = triton_python(folder), folder, None, -1

    def __enter__(self):
        server = self.site / "pytriton/tritonserver"
        minor = self.site.parent.name.removeprefix("python")
        self.work = pathlib.Path(tempfile.mkdtemp())
        write_models(self.work / "models", True)
        shutil.copytree(server / "backends", self.work / "backends")
        shutil.copy2(server / "python_backend_stubs" / minor / "triton_python_backend_stub", self.work / "backends/python")
        self.program = server / "bin/tritonserver"
        self.alive()
        return self

    def alive(self):
        if self.process and self.process.poll() is None:
            return
        libraries = [str(p) for p in (self.site / "nvidia_pytriton.libs", pathlib.Path(sys.base_prefix, "lib"))]
        env = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries), "PYTHONPATH": str(self.site), "PATH": f"{self.folder}/venv/bin:{os.environ['PATH']}"}
        self.restarts += 1
        with open(self.work / "log", "a") as log:
            self.process = subprocess.Popen([self.program, "--model-repository", self.work / "models", "--backend-directory", self.work / "backends",
                                             "--http-port", str(self.http), "--grpc-port", str(self.grpc), "--allow-metrics", "false",
                                             "--model-control-mode", "explicit", *[f"--load-model={m}" for m in MODELS]],
                                            stdout=log, stderr=log, env=env)
        try:
            wait_ready(self.http, self.process)
        except SystemExit:
            print((self.work / "log").read_text()[-3000:], file=sys.stderr)
            raise

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        shutil.rmtree(self.work, ignore_errors=True)


class Isoline:
    name = "isoline"

    def __init__(self, program):
        self.program = program

    def __enter__(self):
        self.work = tempfile.mkdtemp()
        write_models(pathlib.Path(self.work), False)
        self.process = subprocess.Popen([self.program, "serve", "--models", self.work, "--http-port", "0", "--grpc-port", "0", "-q"],
                                        stdout=subprocess.PIPE, text=True)
        ready = json.loads(self.process.stdout.readline())
        self.http, self.grpc = ready["http_port"], ready["grpc_port"]
        return self

    def alive(self):
        if self.process.poll() is not None:
            raise SystemExit(f"isoline ended with {self.process.returncode}")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.work, ignore_errors=True)


# Part one: the same requests.

def fp32(values):
    import struct
    return struct.pack(f"<{len(values)}f", *values)


def rest_corpus():
    """(case, method, path, headers, body) by name."""
    numbers = list(range(16))

    def infer(model="simple", inputs=None, **more):
        inputs = inputs if inputs is not None else [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": numbers}]
        return ("POST", f"/v2/models/{model}/infer", {}, json.dumps({"inputs": inputs, **more}).encode())

    def tensor(**changed):
        return [{**{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": numbers}, **changed}]

    def binary(size=None, payload=fp32(numbers), header_length=None, **more):
        head = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32",
                                       "parameters": {"binary_data_size": len(payload) if size is None else size}}], **more}).encode()
        length = str(len(head)) if header_length is None else header_length
        return ("POST", "/v2/models/simple/infer", {"Inference-Header-Content-Length": length}, head + payload)
    get = lambda path: ("GET", path, {}, None)  # noqa: E731
    return {
        "live": get("/v2/health/live"), "ready": get("/v2/health/ready"), "server": get("/v2"), "model": get("/v2/models/simple"),
        "model ready": get("/v2/models/simple/ready"), "model version": get("/v2/models/simple/versions/1"),
        "wrong version": get("/v2/models/simple/versions/7"), "unknown model": get("/v2/models/nothing"),
        "unknown model ready": get("/v2/models/nothing/ready"), "unknown path": get("/v2/nothing"), "unknown root": get("/nothing"),
        "wrong method": get("/v2/models/simple/infer"), "config": get("/v2/models/simple/config"), "statistics": get("/v2/models/simple/stats"),
        "index": ("POST", "/v2/repository/index", {}, b""), "index ready": ("POST", "/v2/repository/index", {}, b'{"ready":true}'),
        "load unknown": ("POST", "/v2/repository/models/nothing/load", {}, b""),
        "infer": infer(), "infer nested data": infer(inputs=tensor(data=[numbers])), "infer id": infer(id="an id"),
        "infer batch 2": infer(inputs=tensor(shape=[2, 16], data=numbers * 2)),
        "infer named output": infer(outputs=[{"name": "OUTPUT0"}]),
        "infer binary output": infer(outputs=[{"name": "OUTPUT0", "parameters": {"binary_data": True}}]),
        "infer binary input": binary(), "infer binary both": binary(outputs=[{"name": "OUTPUT0", "parameters": {"binary_data": True}}]),
        "infer all binary": binary(parameters={"binary_data_output": True}),
        "infer strings": infer("bytes", [{"name": "INPUT0", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "ü"]}]),
        "infer ints": infer("ints", [{"name": "INPUT0", "shape": [1, 2], "datatype": "INT32", "data": [-5, 2147483647]}]),
        "int too large": infer("ints", [{"name": "INPUT0", "shape": [1, 2], "datatype": "INT32", "data": [0, 2147483648]}]),
        "infer unknown model": infer("nothing"), "no inputs": infer(inputs=[]), "unknown input": infer(inputs=tensor(name="X")),
        "input twice": infer(inputs=tensor() * 2), "unknown output": infer(outputs=[{"name": "X"}]),
        "wrong datatype": infer(inputs=tensor(datatype="INT32")), "unknown datatype": infer(inputs=tensor(datatype="FP31")),
        "wrong shape": infer(inputs=tensor(shape=[1, 15], data=numbers[:15])), "wrong rank": infer(inputs=tensor(shape=[16])),
        "batch too large": infer(inputs=tensor(shape=[9, 16], data=numbers * 9)), "batch 0": infer(inputs=tensor(shape=[0, 16], data=[])),
        "negative dimension": infer(inputs=tensor(shape=[-1, 16])), "too few values": infer(inputs=tensor(data=numbers[:15])),
        "too many values": infer(inputs=tensor(data=numbers + [1])), "text for a number": infer(inputs=tensor(data=["x"] * 16)),
        "shape overflow": infer(inputs=tensor(shape=[1, 1 << 62])), "no shape": infer(inputs=[{"name": "INPUT0", "datatype": "FP32", "data": numbers}]),
        "no datatype": infer(inputs=[{"name": "INPUT0", "shape": [1, 16], "data": numbers}]),
        "empty body": ("POST", "/v2/models/simple/infer", {}, b""), "not JSON": ("POST", "/v2/models/simple/infer", {}, b"{"),
        "JSON array": ("POST", "/v2/models/simple/infer", {}, b"[]"), "binary too short": binary(payload=fp32(numbers)[:-4]),
        "binary size lies": binary(size=1 << 40), "binary size negative": binary(size=-4), "header length not a number": binary(header_length="x"),
        "header length too large": binary(header_length="100000"), "trailing bytes": ("POST", "/v2/models/simple/infer", binary()[2], binary()[3] + b"xx"),
        "gzip that is not": ("POST", "/v2/models/simple/infer", {"Content-Encoding": "gzip"}, infer()[3]),
        "unknown coding": ("POST", "/v2/models/simple/infer", {"Content-Encoding": "br"}, infer()[3]),
        "priority": infer(parameters={"priority": 0}), "sequence": infer(parameters={"sequence_id": 1, "sequence_start": True}),
    }


def rest_answer(server, request):
    method, path, headers, body = request
    c = http.client.HTTPConnection("127.0.0.1", server.http, timeout=10)
    try:
        c.request(method, path, body=body, headers=headers)
        r = c.getresponse()
        raw = r.read()
        length = r.getheader("Inference-Header-Content-Length")
    except (http.client.HTTPException, OSError) as e:
        return {"status": f"no answer ({type(e).__name__})"}
    finally:
        c.close()
    head, rest = (raw[:int(length)], raw[int(length):]) if length else (raw, b"")
    try:
        said = json.loads(head) if head else None
    except ValueError:
        said = {"not JSON": len(head)}
    answer = {"status": r.status}
    if r.status >= 400:
        answer["error"] = isinstance(said, dict) and isinstance(said.get("error"), str)
        answer["text"] = (said or {}).get("error") if isinstance(said, dict) else None
    else:
        answer["json"], answer["binary"] = said, rest.hex()
    return answer


def grpc_corpus(pb):
    def request(model="simple", raw=fp32(range(16)), **changed):
        r = pb.ModelInferRequest(model_name=model, **{k: v for k, v in changed.items() if k in ("id", "model_version")})
        t = r.inputs.add(name=changed.get("name", "INPUT0"), datatype=changed.get("datatype", "FP32"), shape=changed.get("shape", [1, 16]))
        if raw is None:
            t.contents.fp32_contents.extend(float(i) for i in range(16))
        else:
            r.raw_input_contents.append(raw)
        if "output" in changed:
            r.outputs.add(name=changed["output"])
        return "ModelInfer", r
    two = request()
    two[1].raw_input_contents.append(b"1234")
    return {
        "live": ("ServerLive", pb.ServerLiveRequest()), "ready": ("ServerReady", pb.ServerReadyRequest()),
        "server": ("ServerMetadata", pb.ServerMetadataRequest()), "model": ("ModelMetadata", pb.ModelMetadataRequest(name="simple")),
        "model ready": ("ModelReady", pb.ModelReadyRequest(name="simple")), "unknown ready": ("ModelReady", pb.ModelReadyRequest(name="nothing")),
        "unknown model": ("ModelMetadata", pb.ModelMetadataRequest(name="nothing")),
        "wrong version": ("ModelMetadata", pb.ModelMetadataRequest(name="simple", version="7")),
        "config": ("ModelConfig", pb.ModelConfigRequest(name="simple")), "index": ("RepositoryIndex", pb.RepositoryIndexRequest()),
        "infer raw": request(), "infer typed": request(raw=None), "infer id": request(id="an id"), "infer version": request(model_version="1"),
        "infer named output": request(output="OUTPUT0"), "infer unknown": request("nothing"), "infer wrong version": request(model_version="7"),
        "unknown input": request(name="X"), "unknown output": request(output="X"), "wrong datatype": request(datatype="INT32"),
        "unknown datatype": request(datatype="FP31"), "wrong shape": request(shape=[1, 15]), "wrong rank": request(shape=[16]),
        "batch too large": request(shape=[9, 16], raw=fp32([0] * 144)), "raw too short": request(raw=fp32(range(15))),
        "raw too long": request(raw=fp32(range(17))), "more raw than inputs": two, "negative dimension": request(shape=[-1, 16]),
        "shape overflow": request(shape=[1, 1 << 62]),
    }


def grpc_answer(stub, request, json_format, grpc):
    method, message = request
    try:
        answer = getattr(stub, method)(message, timeout=10)
        return {"status": "OK", "json": json_format.MessageToDict(answer, preserving_proto_field_name=True)}
    except grpc.RpcError as e:
        return {"status": e.code().name, "error": bool(e.details()), "text": e.details()}


def plain(case, answer):
    """What must agree: the status, that an error says something, and the whole answer where it is not about the server itself."""
    kept = {k: v for k, v in answer.items() if k not in ("text",)}
    said = kept.get("json")
    if case.split(": ")[1] in ("server", "config", "statistics"):  # names, versions, defaults: compared for shape elsewhere
        kept["json"] = sorted(said)[:1] if isinstance(said, dict) else said
    elif case.split(": ")[1] in ("model", "model version") and isinstance(said, dict):
        kept["json"] = {k: v for k, v in said.items() if k != "platform"}
    elif case.split(": ")[1].startswith("index"):
        models = said.get("models", []) if isinstance(said, dict) else said
        kept["json"] = sorted((m["name"], m.get("version"), m.get("state")) for m in models or [])
    elif isinstance(said, dict) and "outputs" in said:
        kept["json"] = {**said, "outputs": [{k: v for k, v in o.items()} for o in said["outputs"]]}
    return kept


def agreement(ours, theirs):
    import grpc
    from google.protobuf import json_format
    from tritonclient.grpc import service_pb2, service_pb2_grpc
    rows = []

    def both(case, ask):
        answers = []
        for server in (ours, theirs):
            server.alive()
            answers.append(ask(server))
        before = theirs.restarts
        time.sleep(0.02)
        theirs.alive()
        if theirs.restarts > before:
            answers[1]["ended"] = True
        rows.append((case, *answers))

    def by_grpc(server, request):
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
            return grpc_answer(service_pb2_grpc.GRPCInferenceServiceStub(channel), request, json_format, grpc)
    for name, request in rest_corpus().items():
        both(f"REST: {name}", lambda server: rest_answer(server, request))
    for name, request in grpc_corpus(service_pb2).items():
        both(f"gRPC: {name}", lambda server: by_grpc(server, request))
    found = []
    for case, a, b in rows:
        same = plain(case, a) == plain(case, b)
        found.append({"case": case, "same": same, "reason": None if same else REASONS.get(case), "isoline": a, "tritonserver": b})
        if not same:
            print("differs:", case, json.dumps(a)[:300], "|", json.dumps(b)[:300], "|", REASONS.get(case, "UNEXPLAINED"), flush=True)
    return found


# Part two: the same load.

def load(analyzer, server, protocol, concurrency, window_ms):
    program, env = analyzer
    with tempfile.TemporaryDirectory() as out:
        table = os.path.join(out, "t.csv")
        for _ in range(3):  # it writes no table where its windows differ too much
            done = subprocess.run([program, "-m", "simple", "-u", f"127.0.0.1:{getattr(server, protocol)}", "-i", protocol, "-b", "1",
                                   "--concurrency-range", str(concurrency), "-p", str(window_ms), "-s", "20", "-r", "8", "-f", table],
                                  env=env, capture_output=True, text=True, timeout=120)
            if os.path.exists(table):
                break
        else:
            raise SystemExit(f"perf_analyzer: {done.stdout[-1500:]} {done.stderr[-1500:]}")
        with open(table) as f:
            names, values = (line.strip().split(",") for line in f.readlines()[:2])
    row = dict(zip(names, values))
    return {"per_s": float(row["Inferences/Second"]), "p50_us": float(row["p50 latency"]), "p99_us": float(row["p99 latency"])}


def loads(analyzer, ours, theirs, repeats, window_ms):
    rows = []
    for protocol in ("http", "grpc"):
        for concurrency in (1, 2, 8, 32):
            runs = {"isoline": [], "tritonserver": []}
            for _ in range(repeats):
                for server in (ours, theirs):
                    runs[server.name].append(load(analyzer, server, protocol, concurrency, window_ms))
            row = {"protocol": protocol, "concurrency": concurrency, "runs": runs}
            for name, found in runs.items():
                row[name] = {k: statistics.median(r[k] for r in found) for k in ("per_s", "p50_us", "p99_us")}
                row[name]["range_per_s"] = [min(r["per_s"] for r in found), max(r["per_s"] for r in found)]
            row["throughput_ratio"] = row["isoline"]["per_s"] / row["tritonserver"]["per_s"]
            row["p99_ratio"] = row["isoline"]["p99_us"] / row["tritonserver"]["p99_us"]
            rows.append(row)
            print(protocol, concurrency, {k: row[k] for k in ("isoline", "tritonserver", "throughput_ratio", "p99_ratio")}, flush=True)
    return rows


def bars(rows):
    missed = [f"{r['protocol']} c={r['concurrency']}: throughput {r['throughput_ratio']:.2f}× of at least {2 if r['concurrency'] == 1 else 1}×"
              for r in rows if r["throughput_ratio"] < (2 if r["concurrency"] == 1 else 1)]
    return missed + [f"{r['protocol']} c={r['concurrency']}: p99 {r['p99_ratio']:.2f}× as long" for r in rows if r["p99_ratio"] >= 1]


def markdown(d):
    out = ["# Isoline's server beside tritonserver 2.51", "", f"Date {d['date']}. Commit `{d['commit']}`. {d['machine']}. Written by `bench/serve_beside_triton.py`; do "
           "not edit. Identity model of 16 float32, batch 1, one instance, no dynamic batching; Triton's in its python backend (nvidia-pytriton 0.7.0 has no "
           "other). perf_analyzer 2.41 on the same machine, so it shares the cores; servers alternate."]
    if d.get("load"):
        out += ["", "## Load", "", f"Median of {d['repeats']} (range). Throughput in inferences a second, latency in µs.", "",
                "| protocol | concurrency | Isoline /s | Triton /s | ratio | Isoline p50 | Triton p50 | Isoline p99 | Triton p99 |", "|---|---|---|---|---|---|---|---|---|"]
        for r in d["load"]:
            a, b = r["isoline"], r["tritonserver"]
            out.append(f"| {'REST' if r['protocol'] == 'http' else 'gRPC'} | {r['concurrency']} | {a['per_s']:.0f} ({a['range_per_s'][0]:.0f}–{a['range_per_s'][1]:.0f}) | "
                       f"{b['per_s']:.0f} ({b['range_per_s'][0]:.0f}–{b['range_per_s'][1]:.0f}) | {r['throughput_ratio']:.2f} | {a['p50_us']:.0f} | {b['p50_us']:.0f} | "
                       f"{a['p99_us']:.0f} | {b['p99_us']:.0f} |")
        out += ["", "Bar (≥ 2× throughput at concurrency 1, higher throughput and lower p99 everywhere): " + ("; ".join(d["missed"]) or "held") + "."]
    if d.get("answers"):
        same = sum(a["same"] for a in d["answers"])
        out += ["", "## Answers", "", f"{len(d['answers'])} requests to both: {same} answers agree (status, an error text where there is one, and the whole answer but names, versions "
                "and platforms). The others:", "", "| request | Isoline | tritonserver | reason |", "|---|---|---|---|"]
        show = lambda a: f"{a['status']} {(a.get('text') or '')[:120]}{' (the server ended)' if a.get('ended') else ''}".replace("|", "/").replace("\n", " ")  # noqa: E731
        out += [f"| {a['case']} | {show(a['isoline'])} | {show(a['tritonserver'])} | {a['reason'] or '**unexplained**'} |" for a in d["answers"] if not a["same"]]
    return "\n".join(out) + "\n"


def machine():
    with open("/proc/cpuinfo") as f:
        name = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown CPU")
    return f"{len(os.sched_getaffinity(0))} cores, {name}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--isoline", required=True)
    p.add_argument("--clients", type=pathlib.Path, required=True)
    p.add_argument("--triton", type=pathlib.Path, required=True)
    p.add_argument("-o", "--out", type=pathlib.Path, required=True, help="without ending: .json and .md are written")
    p.add_argument("--commit", default="unknown")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--window-ms", type=int, default=1000)
    p.add_argument("--only", choices=["answers", "load"])
    args = p.parse_args()
    clients.run_with_clients(args.clients)
    d = {"command": "bench/serve_beside_triton.py", "date": time.strftime("%Y-%m-%d"), "commit": args.commit, "machine": machine(), "repeats": args.repeats}
    with Triton(args.triton.resolve()) as theirs, Isoline(args.isoline) as ours:
        if args.only != "load":
            d["answers"] = agreement(ours, theirs)
        if args.only != "answers":
            d["load"] = loads(clients.perf_analyzer(args.clients.resolve()), ours, theirs, args.repeats, args.window_ms)
            d["missed"] = bars(d["load"])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(f"{args.out}.json").write_text(json.dumps(d, indent=1) + "\n")
    pathlib.Path(f"{args.out}.md").write_text(markdown(d))
    unexplained = [a["case"] for a in d.get("answers", []) if not a["same"] and not a["reason"]]
    print("unexplained:", unexplained or "none", "missed:", d.get("missed") or "none")
    return 1 if unexplained or d.get("missed") else 0


if __name__ == "__main__":
    sys.exit(main())
