"""Headless Chromium for tests, driven through its debugging pipe. Standard library only."""
import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)


class Browser:
    """One page. `errors` collects exceptions, console errors and whatever the browser itself logs as an error."""

    def __init__(self, width=1200, height=1400, dark=False):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (in_read, self.to), (self.back, out_write) = os.pipe(), os.pipe()

        def descriptors():  # the browser reads commands from 3 and writes to 4
            a, b = os.dup(in_read), os.dup(out_write)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            [CHROMIUM, "--no-sandbox", "--disable-gpu", "--headless", "--hide-scrollbars", "--remote-debugging-pipe", "--ignore-certificate-errors",
             f"--user-data-dir={self.profile.name}", f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
             "about:blank"], close_fds=False, preexec_fn=descriptors, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(in_read)
        os.close(out_write)
        self.numbers, self.buffer, self.session, self.errors, self.answers, self.paused = itertools.count(1), b"", None, [], {}, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.send(domain + ".enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def close(self):
        self.session = None
        self.post("Browser.close")  # its helpers end with it, and nobody writes to the profile any more
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.back)
        self.profile.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- the protocol: JSON messages that end with a NUL
    def post(self, method, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        return number

    def send(self, method, timeout=30, **parameters):
        number, end = self.post(method, **parameters), time.monotonic() + timeout
        while number not in self.answers:
            assert time.monotonic() < end, f"{method}: no answer"
            self.receive(0.5)
        answer = self.answers.pop(number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def receive(self, seconds):
        if select.select([self.back], [], [], seconds)[0]:
            got = os.read(self.back, 1 << 20)
            assert got, "the browser ended"
            self.buffer += got
        while b"\0" in self.buffer:
            text, self.buffer = self.buffer.split(b"\0", 1)
            message = json.loads(text)
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self.event(message["method"], message["params"])

    def event(self, method, p):
        if method == "Runtime.exceptionThrown":
            self.errors.append(p["exceptionDetails"].get("exception", {}).get("description", p["exceptionDetails"]["text"]))
        elif method == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning", "assert"):
            self.errors.append(str([a.get("value", a.get("description")) for a in p["args"]]))
        elif method == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.errors.append(p["entry"]["text"] + " " + p["entry"].get("url", ""))
        elif method == "Fetch.requestPaused":
            self.paused.append(p)
        elif method == "Page.javascriptDialogOpening":
            self.errors.append("a dialog: " + p["message"])

    # -- what tests do
    def open(self, url):
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def js(self, expression):
        r = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in r, (expression, r["exceptionDetails"])
        return r["result"].get("value")

    def wait(self, expression, seconds=20):
        end = time.monotonic() + seconds
        while True:
            value = self.js(expression)
            if value:
                return value
            assert time.monotonic() < end, f"not in {seconds} s: {expression}\n{self.js('document.body.innerText')}\n{self.errors}"
            self.receive(0.05)

    def choose_files(self, selector, *paths):
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(p) for p in paths])

    def key(self, key, text=None):
        extra = {"text": text} if text else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode={"Tab": 9, "Enter": 13, " ": 32}.get(key, 0), **extra)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def type(self, text):
        self.send("Input.insertText", text=text)

    # Answers requests whose address matches the pattern with `body` instead of the server.
    def forge(self, pattern, body, until, status=200, seconds=20):
        self.send("Fetch.enable", patterns=[{"urlPattern": pattern}])
        end = time.monotonic() + seconds
        while not self.js(until):
            assert time.monotonic() < end, (until, self.js("document.body.innerText"))
            self.receive(0.05)
            for p in self.paused:
                self.send("Fetch.fulfillRequest", requestId=p["requestId"], responseCode=status, body=base64.b64encode(body).decode(),
                          responseHeaders=[{"name": "Content-Type", "value": "application/json"}])
            self.paused = []
        self.send("Fetch.disable")

    def screenshot(self, path, full=False):
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))
