"""Scans as jobs: /v1/segmentations with the bundled nnU-Net, over restarts, kills, full queues and bad scans.

usage: segmentations_test.py ISOLINE SOURCE_DIR
"""
import contextlib
import gzip
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

from server import Server, identity, wait_for, write_model

ISOLINE, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
del sys.argv[1:3]
JOBS = "/v1/segmentations"
MODEL = "kidney_phantom"
QUICK = ("--step", "1", "--tta", "none")
SCAN = {"Content-Type": "application/octet-stream"}


def content(path):
    """Header and voxels of a .nii.gz; the gzip stream's own header may hold a time."""
    return gzip.decompress(path if isinstance(path, bytes) else pathlib.Path(path).read_bytes())


def nifti(shape=(8, 8, 8), channels=1, kind=4, voxels=None):
    """A NIfTI-1 file of int16 zeros; more `channels` make it 4-D."""
    dims = list(shape) + ([channels] if channels > 1 else [])
    h = bytearray(352)
    struct.pack_into("<i", h, 0, 348)
    struct.pack_into("<8h", h, 40, len(dims), *dims, *[1] * (7 - len(dims)))
    struct.pack_into("<2h", h, 70, kind, 16)
    struct.pack_into("<8f", h, 76, 1, *[3] * 7)
    struct.pack_into("<3f", h, 108, 352, 1, 0)
    h[344:348] = b"n+1\0"
    if voxels is None:
        voxels = bytes(2 * channels * shape[0] * shape[1] * shape[2])
    return bytes(h) + voxels


class Segmentations(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.root = pathlib.Path(cls.folder.name).resolve()
        made = lambda name, shape: json.loads(subprocess.run(
            [ISOLINE, "phantom", "--seed", "7", "--shape", shape, "--spacing", "6,5,5", "-o", cls.root / name, "--json"],
            check=True, capture_output=True, text=True).stdout)["cases"][0]["image"]
        cls.tiny, cls.long = pathlib.Path(made("tiny", "20,40,40")), pathlib.Path(made("long", "64,128,128"))
        cls.models = cls.root / "models"
        write_model(cls.models, "tensors", identity())
        shutil.copytree(SOURCE / "models" / MODEL, cls.models / MODEL)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @contextlib.contextmanager
    def serving(self, *options, state=None, models=None):
        """The server over the models; must end with 0 unless the test killed it."""
        state = state or pathlib.Path(tempfile.mkdtemp(dir=self.root)) / "state"
        server = Server(ISOLINE, models or self.models, "--state", str(state), *options)
        server.state, killed = state, False
        try:
            yield server
            killed = server.process.poll() is not None
        except BaseException:
            server.process.kill()
            server.process.wait()
            server.process.stdout.close()
            raise
        code = server.stop(60)
        if not killed:
            self.assertEqual(code, 0)

    def kill(self, server):
        server.process.kill()
        server.process.wait()

    def send(self, server, scan, query="", headers=SCAN):
        body = scan if isinstance(scan, bytes) else scan.read_bytes()
        status, _, answer = server.request(f"{JOBS}?model={MODEL}{query}", body, headers, timeout=60)
        return status, json.loads(answer)

    def accepted(self, server, scan, query=""):
        status, job = self.send(server, scan, query)
        self.assertEqual(status, 202, job)
        return job["id"]

    def job(self, server, id):
        status, job = server.json(f"{JOBS}/{id}")
        self.assertEqual(status, 200, job)
        return job

    def becomes(self, server, id, *states, seconds=120):
        wait_for(lambda: self.job(server, id)["status"] in states, seconds)
        job = self.job(server, id)
        self.assertIn(job["status"], states, job)
        return job

    def files(self, server, folder):
        return sorted(p.name for p in (server.state / folder).iterdir())

    def segment(self, *options):
        out = self.root / "segment.nii.gz"
        subprocess.run([ISOLINE, "segment", "-m", SOURCE / "models" / MODEL, "-i", self.tiny, "-o", out, "-q", *options], check=True)
        return content(out)

    def test_labels_are_those_of_segment(self):
        with self.serving("--step", "0.75") as server:
            status, headers, answer = server.request(f"{JOBS}?model={MODEL}", self.tiny.read_bytes(), SCAN)
            job = json.loads(answer)
            self.assertEqual((status, job["status"], job["model"]), (202, "queued", MODEL))
            self.assertEqual(headers["Location"], f"{JOBS}/{job['id']}")
            one = job["id"]
            other = self.accepted(server, gzip.decompress(self.tiny.read_bytes()), "&step=1&tta=0,2")  # plain .nii
            for id, options in ((one, ("--step", "0.75")), (other, ("--step", "1", "--tta", "0,2"))):
                job = self.becomes(server, id, "succeeded")
                status, headers, labels = server.request(f"{JOBS}/{id}/labels")
                self.assertEqual((status, headers["Content-Type"]), (200, "application/gzip"))
                self.assertIn(f"labels-{id}.nii.gz", headers["Content-Disposition"])
                self.assertEqual(content(labels), self.segment(*options))
                status, headers, picture = server.request(f"{JOBS}/{id}/overlay.png")
                self.assertEqual((status, headers["Content-Type"], picture[:8]), (200, "image/png", b"\x89PNG\r\n\x1a\n"))
                report = job["report"]
                self.assertEqual(job["progress"], 1)
                self.assertEqual(report["shape_zyx"], [20, 40, 40])
                self.assertGreater(report["forwards"], 0)
                self.assertEqual(sum(report["label_voxels"].values()), 20 * 40 * 40)
                self.assertNotIn(str(self.root), json.dumps(job))
                times = [job[k] for k in ("created", "started", "finished")]
                self.assertEqual(times, sorted(times))
                self.assertRegex(times[0], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            listed = server.json(JOBS)[1]
            self.assertEqual([m["name"] for m in listed["models"]], [MODEL])
            self.assertEqual([j["id"] for j in listed["jobs"]], [other, one])
            self.assertEqual(self.files(server, "scans"), [])
            self.assertEqual(len(self.files(server, "results")), 4)
            self.assertEqual(server.request(f"{JOBS}/{one}", method="DELETE")[0], 204)
            self.assertEqual(server.json(f"{JOBS}/{one}")[0], 404)
            self.assertEqual(server.request(f"{JOBS}/{one}/labels")[0], 404)
            self.assertEqual(len(self.files(server, "results")), 2)

    def test_the_repository_knows_of_it(self):
        with self.serving() as server:
            self.assertIn({"name": MODEL, "version": "1", "platform": "isoline_volume"}, server.ready["models"])
            index = {m["name"]: m["state"] for m in server.json("/v2/repository/index", {})[1]}
            self.assertEqual(index, {MODEL: "READY", "tensors": "READY"})
            self.assertEqual(server.request(f"/v2/models/{MODEL}/ready")[0], 200)
            self.assertEqual(server.request(f"/v2/models/{MODEL}/versions/2/ready")[0], 400)
            for path in (f"/v2/models/{MODEL}/infer", f"/v2/repository/models/{MODEL}/load", f"/v2/repository/models/{MODEL}/unload"):
                status, answer = server.json(path, {"inputs": []} if path.endswith("infer") else {})
                self.assertEqual(status, 400)
                self.assertIn("/v1/segmentations", answer["error"])
            self.assertEqual(server.json("/v2/models/stats")[0], 200)

    def test_versions_and_broken_models(self):
        models = pathlib.Path(tempfile.mkdtemp(dir=self.root))
        for version in ("1", "3"):
            shutil.copytree(SOURCE / "models" / MODEL, models / "versions" / version)
        (models / "broken").mkdir()
        for name in ("plans.json", "dataset.json"):
            (models / "broken" / name).write_text("{}")
        (models / "linked").symlink_to(SOURCE / "models" / MODEL)
        with self.serving(models=models) as server:
            index = {m["name"]: m for m in server.json("/v2/repository/index", {})[1]}
            self.assertEqual(index["versions"], {"name": "versions", "version": "3", "state": "READY"})
            self.assertEqual(index["broken"]["state"], "UNAVAILABLE")
            self.assertTrue(index["broken"]["reason"])
            self.assertNotIn("linked", index)
            self.assertEqual([m["name"] for m in server.json(JOBS)[1]["models"]], ["versions"])
            self.assertEqual(server.json(f"{JOBS}?model=broken", b"x")[0], 503)

    def test_killed_and_started_again(self):
        with self.serving(*QUICK) as server:
            done = self.accepted(server, self.tiny)
            self.becomes(server, done, "succeeded")
            labels = server.request(f"{JOBS}/{done}/labels")[2]
            running = self.accepted(server, self.long, "&step=0.3&tta=all")
            queued = self.accepted(server, self.tiny)
            self.becomes(server, running, "running")
            self.assertTrue(wait_for(lambda: self.job(server, running)["progress"] > 0, 60))
            self.kill(server)
        with self.serving(*QUICK, state=server.state) as server:
            self.assertEqual([j["id"] for j in server.json(JOBS)[1]["jobs"]], [queued, running, done])
            self.assertEqual(server.request(f"{JOBS}/{done}/labels")[2], labels)
            self.becomes(server, running, "running")
            self.assertEqual(self.job(server, queued)["status"], "queued")
            self.assertEqual(server.request(f"{JOBS}/{running}", method="DELETE")[0], 202)
            self.becomes(server, running, "cancelled")
            self.becomes(server, queued, "succeeded")
            self.assertEqual(content(server.request(f"{JOBS}/{queued}/labels")[2]), content(labels))

    def test_a_scan_that_kills_the_server_is_not_tried_for_ever(self):
        state, id = None, None
        for _ in range(3):
            with self.serving(*QUICK, state=state) as server:
                state = server.state
                id = id or self.accepted(server, self.long, "&step=0.3&tta=all")
                self.becomes(server, id, "running")
                self.kill(server)
        with self.serving(state=state) as server:
            job = self.job(server, id)
            self.assertEqual(job["status"], "failed")
            self.assertIn("3 times", job["error"])
            self.assertEqual(self.files(server, "scans"), [])

    def test_drain_puts_the_running_job_back(self):
        with self.serving(*QUICK, "--drain-timeout", "0.2") as server:
            running = self.accepted(server, self.long, "&step=0.3&tta=all")
            self.becomes(server, running, "running")
            start = time.monotonic()
            self.assertEqual(server.stop(), 0)
            self.assertLess(time.monotonic() - start, 10)
        with self.serving(*QUICK, "--drain-timeout", "0.2", state=server.state) as server:
            self.becomes(server, running, "running")
            server.request(f"{JOBS}/{running}", method="DELETE")
            self.becomes(server, running, "cancelled")

    def test_drain_lets_a_short_job_end_and_takes_no_more(self):
        with self.serving(*QUICK, "--drain-timeout", "60") as server:
            held = socket.create_connection(("127.0.0.1", server.http))  # keeps the server draining
            held.sendall(f"POST {JOBS}?model={MODEL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {self.tiny.stat().st_size}\r\n\r\n".encode())
            id = self.accepted(server, self.long)
            self.becomes(server, id, "running")
            server.process.terminate()
            self.assertTrue(wait_for(lambda: self.refuses_connections(server), 10))
            held.sendall(self.tiny.read_bytes())
            held.settimeout(30)
            answer = held.recv(65536)
            self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
            self.assertIn(b"stopping", answer)
            held.close()
            self.assertEqual(server.process.wait(120), 0)  # a second SIGTERM would end it at once
        with self.serving(*QUICK, state=server.state) as server:
            self.assertEqual(self.job(server, id)["status"], "succeeded")
            self.assertEqual(len(server.json(JOBS)[1]["jobs"]), 1)

    def refuses_connections(self, server):
        try:
            socket.create_connection(("127.0.0.1", server.http)).close()
        except OSError:
            return True
        return False

    def test_cancel_and_a_full_queue(self):
        with self.serving(*QUICK, "--max-jobs", "2") as server:
            running = self.accepted(server, self.long, "&step=0.3&tta=all")
            self.becomes(server, running, "running")
            self.assertEqual(server.request(f"{JOBS}/{running}/labels")[0], 409)
            waiting = [self.accepted(server, self.tiny) for _ in range(2)]
            status, headers, answer = server.request(f"{JOBS}?model={MODEL}", self.tiny.read_bytes(), SCAN)
            self.assertEqual(status, 429, answer)
            self.assertGreater(int(headers["Retry-After"]), 0)
            self.assertIn("full", json.loads(answer)["error"])
            status, job = server.json(f"{JOBS}/{waiting[0]}", method="DELETE")
            self.assertEqual((status, job["status"]), (200, "cancelled"))
            self.assertEqual(self.job(server, waiting[0])["status"], "cancelled")
            self.accepted(server, self.tiny)
            self.assertEqual(server.request(f"{JOBS}/{running}", method="DELETE")[0], 202)
            self.becomes(server, running, "cancelled", seconds=30)
            self.becomes(server, waiting[1], "succeeded")

    def test_bad_requests(self):
        with self.serving(*QUICK, "--max-volume-mb", "1", "--transfer-timeout", "2", "--min-kb-per-s", "1000") as server:
            good, tiny = nifti(), self.tiny.read_bytes()
            bomb = nifti((30000, 30000, 30000), voxels=b"")
            self.assertGreater(len(tiny), 1000)
            for scan, status, text in (
                    (b"", 400, "empty"), (b"no scan at all" * 1000, 400, "NIfTI"), (good[:-1], 400, "promises"), (tiny[:-20], 400, ""),
                    (tiny[:700], 400, ""), (bomb, 400, "promises"), (gzip.compress(bomb), 400, "promises"), (nifti(channels=2), 400, "2 channels"),
                    (gzip.compress(nifti((100, 100, 100))), 413, "limit"), (gzip.compress(nifti((16, 16, 16)) + bytes(8 << 20)), 413, "limit"),
                    (bytes((1 << 20) + 1), 413, "limit")):
                got, answer = self.send(server, scan)
                self.assertEqual(got, status, answer)
                self.assertIn(text, answer["error"])
                self.assertNotIn(str(self.root), answer["error"])
            for path, status in ((JOBS, 400), (JOBS + "?model=absent", 404), (JOBS + "?model=tensors", 404), (JOBS + f"?model={MODEL}&step=0", 400),
                                 (JOBS + f"?model={MODEL}&step=x", 400), (JOBS + f"?model={MODEL}&tta=9", 400), (JOBS + f"?model={MODEL}&x=1", 400),
                                 (JOBS + f"?model=%zz", 400), (JOBS + "/" + "0" * 32, 405), (JOBS + "/" + "0" * 32 + "/labels", 405)):
                got, answer = server.json(path, good)
                self.assertEqual(got, status, (path, answer))
                self.assertTrue(answer["error"])
            for path, method, status in ((JOBS, "PUT", 405), (JOBS, "DELETE", 405), (JOBS + "/" + "0" * 32, "DELETE", 404), (JOBS + "/../etc", "GET", 404),
                                         (JOBS + "/%2e%2e/labels", "GET", 404), (JOBS + "/a/b/c/d", "GET", 404), (JOBS + "/a/other", "GET", 404)):
                got, answer = server.json(path, method=method)
                self.assertEqual(got, status, (path, method, answer))
            for headers in ({"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Encoding": "gzip"}):
                self.assertEqual(self.send(server, good, headers=headers)[0], 415)
            self.assertEqual(self.files(server, "scans"), [])
            self.assertEqual(server.json(JOBS)[1]["jobs"], [])
            # A sender that stops, one that lies about the length, and one that leaves.
            head = f"POST {JOBS}?model={MODEL} HTTP/1.1\r\nHost: localhost\r\n"
            with socket.create_connection(("127.0.0.1", server.http)) as s:
                s.settimeout(10)
                s.sendall((head + "Content-Length: 500000\r\n\r\n").encode() + bytes(1000))
                self.assertTrue(s.recv(65536).startswith(b"HTTP/1.1 408 "))
            with socket.create_connection(("127.0.0.1", server.http)) as s:
                s.settimeout(10)
                s.sendall((head + "Content-Length: 100000000000000\r\n\r\n").encode())
                self.assertTrue(s.recv(65536).startswith(b"HTTP/1.1 413 "))
            with socket.create_connection(("127.0.0.1", server.http)) as s:
                s.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode() + b"400\r\n" + bytes(1024) + b"\r\n")
            self.assertTrue(wait_for(lambda: not self.files(server, "scans")))
            self.assertEqual(server.request("/v2/health/ready")[0], 200)

    def test_large_and_chunked_bodies_go_to_the_disk(self):
        with self.serving(*QUICK, "--max-body-mb", "1", "--max-in-flight-mb", "8", "--max-volume-mb", "200") as server:
            server.request("/v2")
            before = server.rss_kb()
            # 96 MiB that are refused at their end: no NIfTI.
            status, answer = self.send(server, bytes(96 << 20))
            self.assertEqual(status, 400, answer)
            self.assertLess(server.rss_kb() - before, 48 << 10)
            with socket.create_connection(("127.0.0.1", server.http)) as s:
                s.settimeout(30)
                s.sendall(f"POST {JOBS}?model={MODEL} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
                data = gzip.decompress(self.tiny.read_bytes())
                for i in range(0, len(data), 9973):
                    piece = data[i:i + 9973]
                    s.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
                s.sendall(b"0\r\n\r\n")
                answer = s.recv(65536)
                self.assertTrue(answer.startswith(b"HTTP/1.1 202 "), answer)
            id = json.loads(answer.split(b"\r\n\r\n", 1)[1])["id"]
            self.becomes(server, id, "succeeded")
            self.assertEqual(content(server.request(f"{JOBS}/{id}/labels")[2]), self.segment(*QUICK))
            # Others keep their limit.
            self.assertEqual(server.request("/v2/models/tensors/infer", bytes(2 << 20))[0], 413)

    def test_a_bad_scan_found_late_fails_alone(self):
        with self.serving(*QUICK) as server:
            damaged = bytearray(self.tiny.read_bytes())
            damaged[len(damaged) // 2] ^= 0xff  # length and header are right, the voxels are not
            bad, good = self.accepted(server, bytes(damaged)), self.accepted(server, self.tiny)
            job = self.becomes(server, bad, "failed")
            self.assertTrue(job["error"])
            self.assertNotIn(str(self.root), job["error"])
            self.assertEqual(server.request(f"{JOBS}/{bad}/labels")[0], 409)
            self.becomes(server, good, "succeeded")

    def test_named_files(self):
        inside, outside = self.root / "inside", self.root / "outside"
        for folder in (inside, outside):
            folder.mkdir()
            shutil.copy(self.tiny, folder / "scan.nii.gz")
        (inside / "link.nii.gz").symlink_to(outside / "scan.nii.gz")
        (inside / "up").symlink_to(self.root)
        ask = lambda server, file, **more: server.json(JOBS, {"model": MODEL, "file": str(file), **more}, headers={"Content-Type": "application/json"})
        with self.serving(*QUICK, "--allow-root", str(inside), "--allow-root", str(self.root / "tiny")) as server:
            for file in (outside / "scan.nii.gz", inside / "link.nii.gz", inside / "up/outside/scan.nii.gz", f"{inside}/../outside/scan.nii.gz",
                         "/etc/passwd", "/etc/absent", f"{inside}"):
                self.assertEqual(ask(server, file)[0], 403, file)
            self.assertEqual(ask(server, inside / "absent.nii.gz")[0], 404)
            for body in (b"", b"{", b"[]", b'{"model": 1}', b'{"file": "/x", "y": 1}', b"[" * 100000):
                self.assertEqual(server.json(JOBS + f"?model={MODEL}", body, headers={"Content-Type": "application/json"})[0], 400, body[:20])
            self.assertEqual(ask(server, "scan.nii.gz")[0], 400)
            status, job = ask(server, inside / "scan.nii.gz", step=0.75)
            self.assertEqual((status, job["settings"]), (202, {"step": 0.75, "tta": "none"}), job)
            self.becomes(server, job["id"], "succeeded")
            self.assertTrue((inside / "scan.nii.gz").exists())
        with self.serving(*QUICK) as server:
            self.assertEqual(ask(server, inside / "scan.nii.gz")[0], 403)

    def test_tokens(self):
        tokens = self.root / "tokens"
        tokens.write_text("0123456789abcdef0123\n")
        bearer = {"Authorization": "Bearer 0123456789abcdef0123"}
        with self.serving(*QUICK, "--token-file", str(tokens)) as server:
            self.assertEqual(self.send(server, self.tiny)[0], 401)
            self.assertEqual(self.send(server, self.tiny, headers={"Authorization": "Bearer x"})[0], 401)
            self.assertEqual(self.files(server, "scans"), [])
            status, job = self.send(server, self.tiny, headers=bearer)
            self.assertEqual(status, 202, job)
            path = f"{JOBS}/{job['id']}"
            for p in (JOBS, path, path + "/labels", path + "/overlay.png"):
                self.assertEqual(server.request(p)[0], 401, p)
            self.assertEqual(server.request(path, method="DELETE")[0], 401)
            self.assertEqual(self.send(server, self.tiny, headers={**bearer, "Sec-Fetch-Site": "cross-site"})[0], 403)
            self.assertTrue(wait_for(lambda: server.json(path, headers=bearer)[1]["status"] == "succeeded", 60))

    def test_state_folder(self):
        with self.serving() as server:
            self.assertEqual(server.state.stat().st_mode & 0o777, 0o700)
            second = subprocess.run([ISOLINE, "serve", "--models", self.models, "--state", server.state, "--http-port", "0", "--grpc-port", "-1"],
                                    capture_output=True, text=True, timeout=60)
            self.assertNotEqual(second.returncode, 0)
            self.assertIn("--state", second.stderr)
        # The default, and none where there is nothing to segment with.
        home = self.root / "home"
        home.mkdir()
        run = lambda models, **environment: subprocess.Popen(
            [ISOLINE, "serve", "--models", models, "--http-port", "0", "--grpc-port", "-1", "-q"],
            env={"PATH": os.environ["PATH"], **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        only_tensors = self.root / "only_tensors"
        write_model(only_tensors, "tensors", identity())
        for models, environment, folder in ((self.models, {"HOME": str(home)}, home / ".local/state/isoline"),
                                            (self.models, {"XDG_STATE_HOME": str(home / "x")}, home / "x/isoline"), (only_tensors, {}, None)):
            process = run(models, **environment)
            port = json.loads(process.stdout.readline())["http_port"]
            self.assertEqual(folder is None or (folder / "jobs.sqlite").exists(), True)
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(f"GET {JOBS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                self.assertTrue(s.recv(65536).startswith(b"HTTP/1.1 404 " if folder is None else b"HTTP/1.1 200 "))
            process.terminate()
            self.assertEqual(process.wait(30), 0, process.communicate())
            process.stdout.close()
            process.stderr.close()
        process = run(self.models)
        self.assertNotEqual(process.wait(30), 0)
        self.assertIn("--state", process.communicate()[1])

    def start_wrapped(self, state, *wrapper):
        """A server under another program, whose state folder this process may not see."""
        process = subprocess.Popen([*wrapper, ISOLINE, "serve", "--models", str(self.models), "--state", str(state), "--http-port", "0", "--grpc-port", "-1",
                                    *QUICK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        server = Server.__new__(Server)
        server.process, server.state = process, state
        server.http = json.loads(process.stdout.readline())["http_port"]
        server.url = f"http://127.0.0.1:{server.http}"
        return server

    def test_writes_that_fail(self):
        # A limit of file sizes: a write beyond it fails, and nothing of the scan stays.
        server = self.start_wrapped(self.root / "limited", "bash", "-c", 'trap "" XFSZ; ulimit -f 512; exec "$@"', "bash")
        status, answer = self.send(server, nifti((200, 200, 200)))
        self.assertEqual(status, 507, answer)
        self.assertEqual(self.files(server, "scans"), [])
        self.assertEqual(server.json(JOBS)[1]["jobs"], [])
        # A folder that cannot be written.
        (server.state / "scans").rename(server.state / "away")
        status, answer = self.send(server, self.tiny)
        self.assertEqual(status, 503, answer)
        self.assertNotIn(str(self.root), answer["error"])
        (server.state / "away").rename(server.state / "scans")
        self.becomes(server, self.accepted(server, self.tiny), "succeeded")
        self.assertEqual(server.stop(60), 0)

    def test_full_disk(self):
        unshare = ("unshare", "-rm", "bash", "-c")
        disk = self.root / "disk"
        disk.mkdir()
        if subprocess.run([*unshare, f"mount -t tmpfs -o size=100m none {disk}"], capture_output=True).returncode:
            self.skipTest("this system lets nobody mount a small disk")
        server = self.start_wrapped(disk / "state", *unshare, f'mount -t tmpfs -o size=100m none {disk} && exec "$@"', "bash")
        inside = pathlib.Path(f"/proc/{server.process.pid}/root{disk}/state")
        scans = lambda: [p.name for p in (inside / "scans").iterdir()]
        done = self.accepted(server, self.tiny)
        self.becomes(server, done, "succeeded")
        status, answer = self.send(server, bytes(50 << 20))  # announced: refused before it is written
        self.assertEqual((status, answer["error"]), (507, "the server's disk is full"))
        with socket.create_connection(("127.0.0.1", server.http)) as s:  # not announced
            s.settimeout(30)
            s.sendall(f"POST {JOBS}?model={MODEL} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            with contextlib.suppress(OSError):
                for _ in range(120):
                    s.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
            self.assertTrue(s.recv(65536).startswith(b"HTTP/1.1 507 "))
        self.assertTrue(wait_for(lambda: not scans()))
        self.becomes(server, self.accepted(server, self.tiny), "succeeded")
        self.assertEqual(server.request(f"{JOBS}/{done}", method="DELETE")[0], 204)
        self.assertEqual(server.stop(60), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
