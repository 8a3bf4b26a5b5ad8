"""The page at / in headless Chromium, as a user meets it.

usage: page_test.py ISOLINE FAKE_NVML SOURCE_DIR OUT_DIR
Screenshots stay in OUT_DIR. Exit code 77 (skipped) where no headless Chromium is installed.
"""
import http.server
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.error
import urllib.parse
import urllib.request
import zlib

from browser import CHROMIUM, Browser
from server import Server, identity, serving, wait_for

ISOLINE, NVML, SOURCE, OUT = sys.argv[1:5]
del sys.argv[1:5]
OUT = pathlib.Path(OUT)
BODY = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
EVIL = "<img src=x onerror=\"document.documentElement.dataset.pwned=1\"><script>document.documentElement.dataset.pwned=2</script>"


def png(path, seed, side=64):
    """A small picture whose content depends on `seed`."""
    rows = b"".join(b"\0" + bytes((x * seed + y * (7 - seed) + 40 * c) % 256 for x in range(side) for c in range(3)) for y in range(side))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) +
                     chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


class Load:
    """Requests one after another until the block ends."""
    def __init__(self, server, model, headers={}):
        self.stop, self.sent = threading.Event(), 0

        def work():
            while not self.stop.is_set():
                assert server.request(f"/v2/models/{model}/infer", BODY, headers)[0] == 200
                self.sent += 1
        self.thread = threading.Thread(target=work)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def path_of(chart, line="a"):
    return f"document.querySelector('#chart-{chart} path.{line}').getAttribute('d')"


def shown(chart):
    return f"document.querySelector('#chart-{chart} output').textContent"


def errors(browser, *expected):
    """What the browser complained about, but for refusals with one of the expected statuses."""
    return [e for e in browser.errors if not any(f"status of {status} " in e for status in expected)
            and "/v1/segmentations" not in e]  # a server without volume jobs answers 404 there


def polls(browser, n):
    now = int(browser.js("document.documentElement.dataset.rounds || 0"))
    browser.wait(f"document.documentElement.dataset.rounds >= {now + n}")


class Page(unittest.TestCase):
    def test_headers_and_files(self):
        with serving(ISOLINE, {"m": identity()}) as server:
            for path, kind in (("/", "text/html"), ("/page/app.js", "text/javascript"), ("/page/style.css", "text/css")):
                status, headers, body = server.request(path)
                self.assertEqual(status, 200)
                self.assertTrue(headers["Content-Type"].startswith(kind))
                self.assertTrue(headers["Content-Security-Policy"].startswith("default-src 'none'"))
                self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
                self.assertIsNone(re.search(rb"https?://(?!www\.w3\.org/2000/svg)", body))
                self.assertEqual(server.request(path, b"x")[0], 405)

    def test_charts_move_under_load_and_models_are_listed(self):
        models = {"m": identity(delay_ms=5, max_batch=1), "broken": f"platform: '{EVIL}'"}
        with serving(ISOLINE, models, "--nvml", NVML) as server, Browser() as browser:
            browser.open(server.url)
            browser.wait("document.querySelectorAll('#models tr').length === 2")
            rows = browser.js("[...document.querySelectorAll('#models tr')].map(r => [...r.cells].map(c => c.textContent))")
            self.assertEqual(rows[1][:4], ["m", "1", "isoline_identity", "READY"])
            self.assertTrue(rows[0][3].startswith("UNAVAILABLE"))
            self.assertIn(EVIL, rows[0][3])  # the reason, as text
            self.assertIsNone(browser.js("document.documentElement.dataset.pwned || null"))
            self.assertEqual(browser.js(shown("latency")), "no requests")
            browser.wait(f"{shown('throughput')} === '0/s'")
            self.assertEqual(browser.js("document.getElementById('joules').textContent"), "none ran")
            with Load(server, "m") as load:
                browser.wait(f"parseFloat({shown('throughput')}) > 1 && {shown('latency')} !== 'no requests'")
                first = browser.js(path_of("throughput"))
                polls(browser, 2)
                self.assertNotEqual(browser.js(path_of("throughput")), first)
                # Answers take 5 ms and something: both quantiles lie in the buckets from 5 ms on.
                p50, p99 = browser.wait(f"{path_of('latency')}.includes('L') && {path_of('latency', 'b')}.includes('L') && {shown('latency')}.split(' / ')")
                self.assertRegex(p50, r"^[\d.]+ m?s$")
                self.assertGreaterEqual(float(p50.split()[0]) * (1000 if p50.endswith(" s") else 1), 5)
                self.assertRegex(browser.js(shown("power")), r"^(200|400|600) W$")  # two cards of 100 or 300 W
                self.assertIn("GPU-fake-0000", browser.js("document.getElementById('power-note').textContent"))
                self.assertRegex(browser.wait("document.getElementById('joules').textContent !== 'none ran' && "
                                              "document.getElementById('joules').textContent"), r"^[\d.,]+ J$")
            browser.wait(f"{shown('throughput')} === '0/s'")
            browser.wait(f"document.getElementById('total-inferences').textContent.replace(',', '') === '{load.sent}'")
            self.assertEqual(errors(browser), [])

    def test_queue_shows(self):
        with serving(ISOLINE, {"m": identity(delay_ms=3000, max_batch=1)}) as server, Browser() as browser:
            browser.open(server.url)
            browser.wait(f"{shown('queue')} === '0 / 0'")
            threads = [threading.Thread(target=server.request, args=("/v2/models/m/infer", BODY)) for _ in range(3)]
            for t in threads:
                t.start()
            browser.wait(f"{shown('queue')} === '2 / 1'")
            for t in threads:
                t.join()

    def test_energy_is_said_to_be_missing(self):
        with serving(ISOLINE, {"m": identity()}, "--nvml", "/nonexistent.so", "--rapl", "/nonexistent") as server, Browser() as browser:
            browser.open(server.url)
            browser.wait(f"{shown('power')} === 'not available'")
            self.assertEqual(browser.js("document.getElementById('joules').textContent"), "not available")
            self.assertIn("NVML cannot be loaded", browser.js("document.getElementById('power-note').textContent"))
            self.assertEqual(browser.js(path_of("power")), "")

    def test_hostile_answers_stay_text(self):
        with serving(ISOLINE, {"m": identity()}) as server, Browser() as browser:
            browser.open(server.url)
            polls(browser, 1)
            index = json.dumps([{"name": EVIL, "version": EVIL, "state": EVIL, "reason": EVIL}]).encode()
            browser.forge("*/v2/repository/index", index, f"document.getElementById('models').textContent.includes({json.dumps(EVIL)})")
            browser.errors.clear()
            browser.forge("*/metrics", json.dumps({"error": EVIL}).encode(), f"document.getElementById('status').textContent.includes({json.dumps(EVIL)})", 500)
            self.assertIsNone(browser.js("document.documentElement.dataset.pwned || null"))
            self.assertEqual(browser.js("document.images.length"), 0)
            self.assertEqual(errors(browser, 500), [])
            # The policy itself stops what would get in.
            browser.js(f"document.getElementById('server').innerHTML = {json.dumps(EVIL)}; 0")
            self.assertTrue(wait_for(lambda: browser.js("1") and any("Content Security Policy" in e for e in browser.errors)), browser.errors)
            self.assertIsNone(browser.js("document.documentElement.dataset.pwned || null"))

    def test_token_is_asked_for_and_kept_in_memory_only(self):
        with tempfile.TemporaryDirectory() as folder:
            tokens = pathlib.Path(folder) / "tokens"
            tokens.write_text("0123456789abcdef0123\n")
            bearer = {"Authorization": "Bearer 0123456789abcdef0123"}
            with serving(ISOLINE, {"secret_model": identity()}, "--token-file", str(tokens)) as server, Browser() as browser:
                self.assertNotIn(b"secret_model", server.request("/")[2])
                browser.open(server.url)
                browser.wait("!document.getElementById('token-form').hidden && document.activeElement.id === 'token'")
                self.assertNotIn("secret_model", browser.js("document.body.innerText"))
                browser.type("not the token at all")
                browser.key("Enter", "\r")
                browser.wait("!document.getElementById('token-refused').hidden")
                browser.js("document.getElementById('token').focus()")
                browser.type("0123456789abcdef0123")
                browser.key("Enter", "\r")
                browser.wait("document.getElementById('models').textContent.includes('secret_model')")
                self.assertTrue(browser.js("document.getElementById('token-form').hidden"))
                self.assertEqual(browser.js("JSON.stringify([localStorage.length, sessionStorage.length, document.cookie, "
                                            "document.documentElement.outerHTML.includes('0123456789abcdef')])"), '[0,0,"",false]')
                self.assertEqual(server.request("/metrics", headers=bearer)[0], 200)
                browser.open(server.url)  # gone with the page
                browser.wait("!document.getElementById('token-form').hidden")
                self.assertEqual(errors(browser, 401), [])

    def test_narrow_dark_and_keyboard(self):
        OUT.mkdir(parents=True, exist_ok=True)
        with serving(ISOLINE, {"a_model_with_quite_a_long_name_that_must_not_push_the_page_wide": identity()}) as server:
            for width, dark in ((400, True), (400, False), (1200, True)):
                with Browser(width=width, dark=dark) as browser:
                    browser.open(server.url)
                    browser.wait("document.querySelectorAll('#models tr').length === 1")
                    self.assertLessEqual(browser.js("document.documentElement.scrollWidth"), width)
                    ink, ground = (list(map(int, re.findall(r"\d+", browser.js(f"getComputedStyle(document.body).{p}"))[:3])) for p in ("color", "backgroundColor"))
                    light = lambda c: sum(w * (v / 12.92 / 255 if v / 255 <= .03928 else ((v / 255 + .055) / 1.055) ** 2.4) for w, v in zip((.2126, .7152, .0722), c))
                    self.assertEqual(light(ground) < light(ink), dark)
                    contrast = (max(light(ink), light(ground)) + .05) / (min(light(ink), light(ground)) + .05)
                    self.assertGreater(contrast, 7)
                    reached = []
                    for _ in range(8):
                        browser.key("Tab")
                        reached.append(browser.js("document.activeElement.id || document.activeElement.className || document.activeElement.tagName"))
                    for wanted in ("scroll", "photo-model", "scan-model"):
                        self.assertIn(wanted, reached)
                    browser.screenshot(OUT / f"page-{width}-{'dark' if dark else 'light'}.png")
                    self.assertEqual(errors(browser), [])


def runs_onnx():
    return "openvino" in subprocess.run([ISOLINE, "devices"], capture_output=True, text=True, timeout=60).stdout


class JobsInFront(http.server.BaseHTTPRequestHandler):
    """A stand-in that answers /v1/segmentations as told and hands everything else to the server behind: states that a real job is in
    only for a moment, and texts that no real job has."""
    protocol_version = "HTTP/1.1"
    behind, jobs, accept, log = "", {}, 202, []

    def answer(self, status, body, kind="application/json", headers=()):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if not path.startswith("/v1/segmentations"):
            try:
                request = urllib.request.Request(self.behind + self.path, data=body or None, method=self.command, headers={"Content-Type": self.headers.get("Content-Type") or "x/x"})
                with urllib.request.urlopen(request) as r:
                    return self.answer(r.status, r.read(), r.headers["Content-Type"], [(k, v) for k, v in r.headers.items() if k == "Content-Security-Policy"])
            except urllib.error.HTTPError as e:
                return self.answer(e.code, e.read())
        self.log.append((self.command, self.path, len(body)))
        parts = path.split("/")[3:]
        if self.command == "POST":
            if self.accept != 202:
                return self.answer(self.accept, {"error": "the queue is full " + EVIL})
            self.jobs["new-1"] = {"id": "new-1", "model": urllib.parse.parse_qs(query)["model"][0], "status": "queued", "progress": 0, "created": "2026-01-01T00:00:00Z"}
            return self.answer(202, self.jobs["new-1"])
        if not parts:
            return self.answer(200, {"models": [{"name": "kidneys"}], "jobs": list(reversed(self.jobs.values()))})
        if self.command == "DELETE":
            self.jobs[parts[0]]["status"] = "cancelled"
            return self.answer(200, self.jobs[parts[0]])
        if parts[1:] == ["overlay.png"]:
            return self.answer(200, (OUT / "overlay-source.png").read_bytes(), "image/png")
        if parts[1:] == ["labels"]:
            return self.answer(200, b"labels of " + parts[0].encode(), "application/octet-stream")
        self.answer(200, self.jobs[parts[0]])

    do_GET = do_POST = do_DELETE = do_HEAD = handle_any

    def log_message(self, *_):
        pass


class Scans(unittest.TestCase):
    def setUp(self):
        OUT.mkdir(parents=True, exist_ok=True)
        png(OUT / "overlay-source.png", 3, 200)
        self.context = serving(ISOLINE, {"m": identity()})
        server = self.context.__enter__()
        self.addCleanup(self.context.__exit__, None, None, None)
        self.front = type("Front", (JobsInFront,), {"behind": server.url, "jobs": {}, "log": []})
        httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.front)
        threading.Thread(target=httpd.serve_forever).start()
        self.addCleanup(httpd.server_close)
        self.addCleanup(httpd.shutdown)
        self.url = f"http://127.0.0.1:{httpd.server_port}"
        self.scan = OUT / "scan.nii.gz"
        self.scan.write_bytes(b"0123456789" * 100)

    def test_a_scan_from_its_file_to_its_picture(self):
        with Browser() as browser:
            browser.open(self.url)
            browser.wait("document.getElementById('scan-model').value === 'kidneys'")
            browser.choose_files("#scan-file", self.scan)
            job = "document.querySelector('#scan-jobs li')"
            browser.wait(f"{job} && {job}.dataset.status === 'queued'")
            self.assertIn(("POST", "/v1/segmentations?model=kidneys", 1000), self.front.log)
            self.front.jobs["new-1"] |= {"status": "running", "progress": 0.42, "started": "2026-01-01T00:00:01Z"}
            browser.wait(f"{job}.querySelector('progress').value === 0.42 && {job}.innerText.includes('42 %')")
            self.front.jobs["new-1"] |= {"status": "succeeded", "progress": 1, "finished": "2026-01-01T00:00:13.5Z"}
            browser.wait(f"{job}.dataset.overlay === '200'")
            self.assertIn("ran 12.5 s", browser.js(f"{job}.innerText"))
            self.assertTrue(browser.js(f"{job}.querySelector('progress').hidden"))
            got = browser.js(f"""(async () => {{ let name; const click = HTMLAnchorElement.prototype.click;
                const file = new Promise((r) => {{ HTMLAnchorElement.prototype.click = function() {{ name = this.download; r(fetch(this.href).catch(() => null)); }}; }});
                [...{job}.querySelectorAll('button')].find((b) => b.textContent.startsWith('Labels')).click();
                await file; HTMLAnchorElement.prototype.click = click; return name; }})()""")
            self.assertEqual(got, "labels-new-1.nii.gz")
            self.assertIn(("GET", "/v1/segmentations/new-1/labels", 0), self.front.log)
            browser.errors = [e for e in browser.errors if "blob:" not in e]  # the check's own fetch of a blob is refused by the policy
            self.assertEqual(errors(browser), [])

    def test_cancel_failure_and_a_full_queue(self):
        self.front.jobs["old"] = {"id": "old", "model": EVIL, "status": "failed", "progress": 0.1, "error": EVIL}
        with Browser() as browser:
            browser.open(self.url)
            browser.wait("document.querySelector('#scan-jobs li[data-status=failed]') !== null")
            self.assertIn(EVIL, browser.js("document.querySelector('#scan-jobs li .bad').textContent"))
            browser.choose_files("#scan-file", self.scan)
            browser.wait("document.querySelector('#scan-jobs li[data-job=new-1]') !== null")
            browser.js("document.querySelector('#scan-jobs li[data-job=new-1] button').click()")
            browser.wait("document.querySelector('#scan-jobs li[data-job=new-1]').dataset.status === 'cancelled'")
            self.assertIn(("DELETE", "/v1/segmentations/new-1", 0), self.front.log)
            self.front.accept = 429
            browser.choose_files("#scan-file", self.scan)
            browser.wait("document.getElementById('scan-note').textContent.includes('the queue is full')")
            self.assertIsNone(browser.js("document.documentElement.dataset.pwned || null"))
            self.assertEqual(browser.js("document.querySelectorAll('#scan-jobs img').length"), 0)
            del self.front.jobs["old"]
            browser.wait("document.querySelectorAll('#scan-jobs li').length === 1")


class Bundled(unittest.TestCase):
    """The models of the repository."""
    @classmethod
    def setUpClass(cls):
        if not runs_onnx():
            raise unittest.SkipTest("this build has no backend that runs ONNX files")
        cls.folder = tempfile.TemporaryDirectory()
        cls.root = pathlib.Path(cls.folder.name)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def start(self, model, *options):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.root))
        shutil.copytree(pathlib.Path(SOURCE) / "models" / model, folder / model)
        return Server(ISOLINE, folder, *options)

    def test_photo(self):
        server = self.start("photo_copies")
        try:
            with Browser() as browser:
                browser.open(server.url)
                browser.wait("document.getElementById('photo-model').value === 'photo_copies'")
                one, other = png(self.root / "one.png", 3), png(self.root / "other <b>.png", 5)
                (self.root / "broken.png").write_bytes(b"no picture")
                browser.choose_files("#photo-file", one)
                browser.wait("document.querySelectorAll('#photo-answers li[data-done=yes]').length === 1")
                text = browser.js("document.querySelector('#photo-answers li').innerText")
                self.assertIn("photo_copies answered in", text)
                # The same numbers as the API gives.
                answer = json.loads(server.request("/v2/models/photo_copies/infer", one.read_bytes(), {"Content-Type": "application/octet-stream"})[2])
                values = answer["outputs"][0]["data"]
                listed = [float(v) for v in re.search(r"\d+ values: ([^…]+), …", text)[1].split(", ")]
                self.assertIn(f"{len(values)} values", text)
                for a, b in zip(listed, values):
                    self.assertAlmostEqual(a, b, delta=abs(b) * 1e-3 + 1e-6)
                self.assertNotIn("cosine", text)
                browser.choose_files("#photo-file", one, other)  # one after another
                browser.wait("document.querySelectorAll('#photo-answers li[data-done=yes]').length === 3")
                cosines = browser.js("[...document.querySelectorAll('#photo-answers .cosine')].map(e => e.textContent)")
                self.assertEqual(cosines[1], "cosine with one.png: 1.0000")
                vectors = [json.loads(server.request("/v2/models/photo_copies/infer", p.read_bytes(), {"Content-Type": "application/octet-stream"})[2])
                           ["outputs"][0]["data"] for p in (one, other)]
                norm = lambda v: sum(x * x for x in v) ** .5
                want = sum(a * b for a, b in zip(*vectors)) / norm(vectors[0]) / norm(vectors[1])
                self.assertAlmostEqual(float(cosines[0].rsplit(" ", 1)[1]), want, delta=2e-4)
                self.assertEqual(errors(browser), [])
                browser.choose_files("#photo-file", self.root / "broken.png")
                browser.wait("document.querySelector('#photo-answers li').dataset.done === 'failed'")
                self.assertTrue(browser.js("document.querySelector('#photo-answers .bad').textContent"))
        finally:
            self.assertEqual(server.stop(), 0)

    def test_scan(self):
        made = subprocess.run([ISOLINE, "phantom", "--seed", "7", "--shape", "20,40,40", "--spacing", "6,5,5", "-o", self.root / "phantom", "--json"],
                              check=True, capture_output=True, text=True)
        server = self.start("kidney_phantom", "--state", str(self.root / "state"), "--step", "1", "--tta", "none")
        try:
            with Browser() as browser:
                browser.open(server.url)
                browser.wait("document.getElementById('scan-model').value === 'kidney_phantom'")
                browser.choose_files("#scan-file", json.loads(made.stdout)["cases"][0]["image"])
                browser.wait("document.querySelector('#scan-jobs li[data-status=succeeded]') !== null")
                browser.wait("document.querySelector('#scan-jobs li').dataset.overlay > 0")
                self.assertEqual(errors(browser), [])
        finally:
            self.assertEqual(server.stop(), 0)

    def test_dropped_photo(self):
        server = self.start("photo_copies")
        try:
            with Browser() as browser:
                browser.open(server.url)
                browser.wait("document.getElementById('photo-model').value === 'photo_copies'")
                data = list(png(self.root / "drop.png", 2).read_bytes())
                browser.js(f"""(() => {{ const t = new DataTransfer(); t.items.add(new File([new Uint8Array({data})], 'drop.png', {{type: 'image/png'}}));
                  document.getElementById('photo-drop').dispatchEvent(new DragEvent('drop', {{dataTransfer: t, bubbles: true, cancelable: true}})); return 1; }})()""")
                browser.wait("document.querySelectorAll('#photo-answers li[data-done=yes]').length === 1")
                self.assertEqual(errors(browser), [])
        finally:
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    if not CHROMIUM:
        print("skipped: no headless Chromium (Debian: chromium-headless-shell)")
        sys.exit(77)
    unittest.main(verbosity=2)
