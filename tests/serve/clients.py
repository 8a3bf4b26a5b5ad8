"""Triton's own clients and perf_analyzer for the tests of this folder, from wheels."""
import glob
import os
import pathlib
import shutil
import subprocess
import sys

CLIENTS = ["tritonclient[http,grpc]==2.51.0", "numpy==1.26.4"]
ANALYZER = ["tritonclient==2.41.1", "nvidia-cuda-runtime-cu12==12.9.79"]


def install(folder):
    """Python of a venv with the clients; ends the test with 77 if the wheels cannot be had."""
    stamp = folder / "stamp"
    wanted = repr((CLIENTS, ANALYZER))
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
            pip = [folder / "venv/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
            subprocess.run(pip + CLIENTS, check=True)
            subprocess.run(pip + ["--no-deps", "--only-binary", ":all:", "--target", folder / "analyzer", *ANALYZER], check=True)
        except (subprocess.CalledProcessError, OSError) as e:
            print(f"skipped: the clients cannot be installed here ({e})")
            sys.exit(77)
        stamp.write_text(wanted)
    return folder / "venv/bin/python"


def run_with_clients(folder):
    """Starts this program again with a Python that has the clients, installed into `folder` once."""
    if os.environ.get("ISOLINE_CONFORMANCE") == "1":
        return
    python = install(pathlib.Path(folder).resolve())
    os.environ["ISOLINE_CONFORMANCE"] = "1"
    os.execv(python, [str(python), *sys.argv])


def perf_analyzer(folder):
    """The program and the environment it needs."""
    program = next(iter(glob.glob(f"{folder}/analyzer/**/perf_analyzer", recursive=True)))
    cudart = next(iter(glob.glob(f"{folder}/analyzer/**/libcudart.so.12", recursive=True)))
    os.chmod(program, 0o755)
    return program, {**os.environ, "LD_LIBRARY_PATH": os.path.dirname(cudart)}
