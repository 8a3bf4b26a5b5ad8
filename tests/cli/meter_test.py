#!/usr/bin/env python3
"""`isoline meter` against a stand-in NVML, and without any meter.

Usage: meter_test.py ISOLINE FAKE_NVML. Standard library only.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ISOLINE = pathlib.Path(sys.argv[1]).resolve()
NVML = pathlib.Path(sys.argv[2]).resolve()
NONE = ["--nvml", "libno-such-nvml.so", "--rapl", "/no/such/powercap"]


def meter(*arguments, code=0, stdin=None):
    result = subprocess.run([str(ISOLINE), "meter", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                            input=stdin)
    if result.returncode != code:
        raise AssertionError(f"exit code {result.returncode}, not {code}: {result.stderr}")
    return result


class Meter(unittest.TestCase):
    def test_absent_meters_have_reasons(self):
        sources = json.loads(meter("list", "--json", *NONE).stdout)["sources"]
        self.assertEqual([s["id"] for s in sources], ["nvml", "rapl"])
        for s in sources:
            self.assertFalse(s["available"])
            self.assertTrue(s["reason"] and s["remedy"])
        text = meter("list", *NONE).stdout
        self.assertIn("libno-such-nvml.so", text)
        self.assertIn("/no/such/powercap", text)

    def test_run_passes_output_and_exit_code_on(self):
        done = meter("run", *NONE, "--", "sh", "-c", "echo out; exit 7", code=7)
        self.assertEqual(done.stdout, "out\n")
        self.assertIn("exit code 7", done.stderr)
        killed = meter("run", "-q", *NONE, "--", "sh", "-c", "kill -TERM $$", code=143)
        self.assertEqual(killed.stderr, "")
        missing = meter("run", *NONE, "--", "/no/such/command", code=3)
        self.assertIn("/no/such/command", missing.stderr)
        self.assertEqual(missing.stderr.count("\n"), 1)
        meter("run", *NONE, code=2)

    def test_run_measures_time_cpu_memory_and_energy(self):
        work = "x = bytearray(64 << 20); s = 0\nfor i in range(3000000): s += i\nprint('done')"
        done = meter("run", "--json", "--nvml", NVML, "--idle", 0.5, "--", sys.executable, "-c", work)
        report = json.loads(done.stdout)  # the command's own output is not in it
        self.assertIn("done", done.stderr)
        self.assertEqual(report["exit_code"], 0)
        self.assertGreater(report["cpu_s"], 0.02)
        self.assertLess(report["cpu_s"], report["wall_s"] * 2)
        self.assertGreater(report["peak_rss_bytes"]["value"], 64 << 20)
        device = report["devices"][0]
        energy, wall = device["energy_gross_j"]["value"], report["wall_s"]
        self.assertGreater(energy, 90 * wall - device["energy_uncertainty_j"]["value"])
        self.assertLess(energy, 310 * wall + device["energy_uncertainty_j"]["value"])
        idle = report["idle"]["devices"][0]["power_w"]["value"]
        self.assertAlmostEqual(device["energy_net_j"]["value"], energy - idle * wall, 6)
        self.assertEqual(device["peak_vram_bytes"]["value"], 3 << 30)
        self.assertIn("reason", device["peak_process_vram_bytes"])  # the command holds no context
        self.assertIn("Net energy", report["idle_protocol"])

    def test_run_writes_a_report_and_a_trace(self):
        with tempfile.TemporaryDirectory() as folder:
            report, trace = pathlib.Path(folder, "r.json"), pathlib.Path(folder, "t.csv")
            done = meter("run", "-q", "-o", report, "--trace", trace, "--nvml", NVML, "--", "sh", "-c", "echo out; sleep 0.3")
            self.assertEqual(done.stdout, "out\n")
            self.assertEqual(done.stderr, "")
            self.assertEqual(json.loads(report.read_text())["command"][0], "sh")
            lines = trace.read_text().splitlines()
            self.assertEqual(lines[0], "t_s,source,what,value")
            self.assertTrue(any(",counter_j," in line for line in lines))
            self.assertTrue(any(",power_w," in line for line in lines))

    def test_calibrate_finds_the_tick(self):
        source = json.loads(meter("calibrate", "--json", "--seconds", 1, "--nvml", NVML, "--gpu", "GPU-fake-0001").stdout)["sources"][0]
        self.assertAlmostEqual(source["tick_period_s"]["median"], 0.1, 1)
        self.assertGreater(source["counter_call_us"]["n"], 10)

    def test_unknown_gpu_and_phase(self):
        self.assertIn("GPU-fake-0000", meter("list", "--nvml", NVML, "--gpu", "GPU-x", code=3).stderr)
        self.assertIn("--phase", meter("run", "--phase", "sideways", *NONE, "--", "true", code=2).stderr)

    def test_session(self):
        done = meter("session", "--nvml", NVML, "--no-cpu", "--gpu", "GPU-fake-0000",
                     stdin="begin aligned\nidle 0.5\nend 1\nend 1\nnonsense\nquit\n")
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(answers[0]["sources"][0]["id"], "GPU-fake-0000")
        self.assertEqual(answers[1], {"token": 1})
        self.assertEqual(answers[2]["devices"][0]["state"], "context alive")
        self.assertIsNotNone(answers[3]["devices"][0]["energy_gross_j"]["value"])
        self.assertGreater(answers[3]["wall_s"], 0.5)
        self.assertIn("error", answers[4])
        self.assertIn("error", answers[5])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
