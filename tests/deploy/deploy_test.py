"""The files of deploy/ agree with the program: the unit is valid and confined, the container brings every library,
the installed program runs from where it was installed.

usage: deploy_test.py BUILD_DIR SOURCE_DIR
"""
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

BUILD, SOURCE = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
del sys.argv[1:3]
sys.path.insert(0, str(SOURCE / "tests/serve"))
from server import Server, identity, write_model  # noqa: E402

UNIT, CONTAINER = SOURCE / "deploy/systemd/isoline.service", SOURCE / "deploy/Containerfile"


class Deploy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.prefix = pathlib.Path(cls.folder.name) / "installed"
        subprocess.run(["cmake", "--install", BUILD, "--prefix", cls.prefix, "--component", "program"], check=True, capture_output=True)
        cls.isoline = cls.prefix / "bin/isoline"

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def libraries(self):
        out = subprocess.run(["ldd", self.isoline], check=True, capture_output=True, text=True).stdout
        self.assertNotIn("not found", out)
        return {pathlib.Path(p).resolve() for p in re.findall(r"=> (/\S+)", out)}

    def test_installed_program_needs_nothing_of_the_build(self):
        for library in self.libraries():
            self.assertFalse(library.is_relative_to(BUILD) or library.is_relative_to(SOURCE), library)
            self.assertNotIn("site-packages", str(library))

    def test_container_has_every_library(self):
        if not shutil.which("dpkg-query"):
            self.skipTest("no dpkg: packages are Debian's")
        stage = CONTAINER.read_text().split("FROM ")[2]
        listed = set(re.search(r"--no-install-recommends \\\n(.*?)\n &&", stage, re.S)[1].replace("\\", " ").split())
        needed = set()
        for library in self.libraries():
            if library.is_relative_to(self.prefix):
                continue
            names = [library, pathlib.Path("/usr") / library.relative_to("/"), pathlib.Path("/") / library.relative_to("/usr") if library.is_relative_to("/usr") else library]
            owner = next((r.stdout for n in names if (r := subprocess.run(["dpkg-query", "-S", str(n)], capture_output=True, text=True)).returncode == 0), None)
            self.assertIsNotNone(owner, f"no package has {library}")
            needed.add(owner.split(":")[0])
        needed -= {"libc6"}  # of every image
        self.assertLessEqual(needed, listed)
        self.assertLessEqual(listed, needed)

    def test_installed_program_serves_and_the_health_check_sees_it(self):
        with tempfile.TemporaryDirectory() as root:
            write_model(root, "m", identity())
            shutil.copytree(SOURCE / "models/photo_copies", pathlib.Path(root) / "photo_copies")
            server = Server(self.isoline, root)
            try:
                if any(m["name"] == "photo_copies" for m in server.ready["models"]):  # a backend for ONNX was built
                    picture = (SOURCE / "docs/images/lab-report.png").read_bytes()
                    status, _, answer = server.request("/v2/models/photo_copies/infer", picture, {"Content-Type": "image/png"})
                    self.assertEqual(status, 200, answer)
                check = re.search(r'HEALTHCHECK.*?CMD \["bash", "-c", \\\n\s*"(.*)"\]', CONTAINER.read_text())[1].replace("\\\\", "\\")
                check = lambda port, text=check: subprocess.run(["bash", "-c", text.replace("/8000", f"/{port}")], capture_output=True, timeout=10).returncode
                self.assertEqual(check(server.http), 0)
                with socket.create_server(("127.0.0.1", 0)) as free:
                    unused = free.getsockname()[1]
                self.assertNotEqual(check(unused), 0)
            finally:
                self.assertEqual(server.stop(), 0)

    def test_unit(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("no systemd-analyze")
        text = UNIT.read_text()
        start = re.search(r"^ExecStart=(\S+)", text, re.M)[1]
        with tempfile.TemporaryDirectory() as folder:
            unit = pathlib.Path(folder) / "isoline.service"
            unit.write_text(text.replace(start, str(self.isoline)))
            run = lambda *a: subprocess.run(["systemd-analyze", *a], capture_output=True, text=True)
            r = run("verify", "--man=no", str(unit))
            complaints = [line for line in (r.stdout + r.stderr).splitlines() if "isoline" in line]
            self.assertEqual((r.returncode, complaints), (0, []))
            # 0 is shut in, 10 is open; below 2.5 systemd calls it OK.
            r = run("security", "--offline=true", "--threshold=25", str(unit))
            self.assertEqual(r.returncode, 0, r.stdout[-300:])
            unit.write_text(unit.read_text().replace("DynamicUser=yes\n", "").replace("ProtectSystem=strict\n", ""))
            self.assertNotEqual(run("security", "--offline=true", "--threshold=15", str(unit)).returncode, 0)
        options = subprocess.run([self.isoline, "serve", "--help"], capture_output=True, text=True).stdout
        for option in re.findall(r"--[a-z][a-z-]+", re.search(r"^ExecStart=.*", text, re.M)[0] + CONTAINER.read_text().split("ENTRYPOINT")[1]):
            self.assertIn(option, options)


if __name__ == "__main__":
    unittest.main(verbosity=2)
