"""Starts `isoline serve` over models written on the spot, for the tests of this folder."""
import contextlib
import json
import pathlib
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

IDENTITY = """
platform: "isoline_identity"
max_batch_size: {max_batch}
input [ {{ name: "INPUT0" data_type: {type} dims: [ {dims} ] }} ]
output [ {{ name: "OUTPUT0" data_type: {type} dims: [ {dims} ] }} ]
{extra}
"""


def identity(max_batch=8, type="TYPE_FP32", dims="-1", delay_ms=0, extra=""):
    if delay_ms:
        extra += '\nparameters { key: "execute_delay_ms" value { string_value: "%g" } }' % delay_ms
    return IDENTITY.format(max_batch=max_batch, type=type, dims=dims, extra=extra)


def write_model(root, name, config, versions=()):
    folder = pathlib.Path(root) / name
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    for v in versions:
        (folder / str(v)).mkdir()


class Server:
    def __init__(self, isoline, models, *options):
        self.process = subprocess.Popen([isoline, "serve", "--models", str(models), "--http-port", "0", "--grpc-port", "0", "-q",
                                         *options], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            self.process.stdout.close()
            raise RuntimeError(f"the server ended with {self.process.wait()}")
        self.ready = json.loads(line)
        self.http, self.grpc = self.ready["http_port"], self.ready["grpc_port"]
        self.url = f"http://127.0.0.1:{self.http}"

    def request(self, path, body=None, headers={}, method=None, timeout=10):
        """(status, headers, body) of one request; dicts are sent as JSON."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as r:
                return r.status, r.headers, r.read()
        except urllib.error.HTTPError as e:
            return e.code, e.headers, e.read()

    def json(self, path, body=None, **options):
        status, _, answer = self.request(path, body, **options)
        return status, json.loads(answer) if answer else None

    def rss_kb(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))

    def stop(self, timeout=20):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        self.process.stdout.close()
        return code


@contextlib.contextmanager
def serving(isoline, models, *options):
    """models: {name: config text} or {name: (config text, versions)}. The server must end with 0."""
    with tempfile.TemporaryDirectory() as root:
        for name, config in models.items():
            write_model(root, name, *(config if isinstance(config, tuple) else (config,)))
        server = Server(isoline, root, *options)
        server.root = pathlib.Path(root)
        try:
            yield server
        except BaseException:
            server.process.kill()
            server.process.wait()
            raise
        code = server.stop()
        assert code == 0, f"the server ended with {code}"


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False
