#!/usr/bin/env python3
"""`isoline report` and `isoline compare` as a user sees them: reports from stored run summaries, opened in headless
Chromium in light and dark, wide and narrow, and printed.

usage: report_browser_test.py ISOLINE SOURCE_DIR OUT_DIR
Screenshots and PDFs stay in OUT_DIR. Exit code 77 (skipped) where no headless Chromium is installed (tools/setup.sh
installs it). Nothing here needs a network; the reports hold no script, the checks add one to a copy.
"""
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import unittest

ISOLINE, SOURCE, OUT = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
del sys.argv[1:4]
GPU, CPU = (SOURCE / "tests/goldens/lab" / f"{k}_run.json" for k in ("gpu", "cpu"))
REFERENCE = sorted((SOURCE / "docs/reference").glob("*.json"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
EVIL = "<script>document.documentElement.dataset.pwned=1</script><img src=x onerror=alert(1)>|*`'\"&"

CHECK = """<script>
const wide = [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') &&
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.tagName + '.' + e.className);
document.documentElement.dataset.check = JSON.stringify({
  scroll: document.documentElement.scrollWidth, client: document.documentElement.clientWidth, wide: wide.slice(0, 5),
  scripts: document.scripts.length, images: document.images.length, tables: document.querySelectorAll('table').length,
  figures: document.querySelectorAll('svg').length, background: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.querySelector('svg text')).fill, pwned: document.documentElement.dataset.pwned || null});
</script>"""


def isoline(*arguments, code=0):
    r = subprocess.run([ISOLINE, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert r.returncode == code, f"isoline {arguments}: exit {r.returncode}\n{r.stdout}{r.stderr}"
    return r.stdout if code == 0 else r.stderr


def report(name, *runs, options=()):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    said = json.loads(isoline("report", *runs, "-o", folder, "--json", *options))
    assert pathlib.Path(said["html"]) == folder / "report.html", said
    return folder


def chromium(*arguments):
    profile = OUT / "profile"
    r = subprocess.run([CHROMIUM, "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
                        "--virtual-time-budget=2000", *map(str, arguments)],
                       capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(OUT)})
    assert r.returncode == 0, r.stderr
    return r.stdout


def look(folder, width, dark):
    """What the browser says about the page at this width and colour scheme."""
    page = (folder / "report.html").read_text()
    copy = folder / "checked.html"
    # The page forbids scripts; the copy that carries the check has to allow it.
    page, policies = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert policies == 1
    copy.write_text(page.replace("</body>", CHECK + "</body>"))
    dom = chromium("--dump-dom", f"--window-size={width},900", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                   copy.as_uri())
    found = re.search(r'data-check="([^"]*)"', dom)
    assert found, "the check did not run"
    return json.loads(found.group(1).replace("&quot;", '"').replace("&lt;", "<").replace("&amp;", "&"))


def luminance(css):
    r, g, b = map(int, re.findall(r"\d+", css)[:3])
    return (299 * r + 587 * g + 114 * b) / 255000


class Reports(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        OUT.mkdir(parents=True, exist_ok=True)
        cls.one = report("one", GPU, options=("--price-per-hour", "2.5", "--price-per-kwh", "0.3", "--co2-g-per-kwh", "380"))
        cls.several = report("several", GPU, CPU, *REFERENCE)

    def test_nothing_but_tables_and_figures_is_wider_than_the_screen(self):
        for folder in (self.one, self.several):
            for width in (360, 768, 1280):
                seen = look(folder, width, dark=False)
                self.assertEqual(seen["client"], width)
                self.assertLessEqual(seen["scroll"], width, f"{folder} at {width}: {seen['wide']}")
                self.assertEqual(seen["wide"], [], f"{folder} at {width}")
        self.assertGreater(seen["tables"], 20)
        self.assertGreater(seen["figures"], 10)

    def test_light_and_dark(self):
        light, dark = (look(self.one, 1280, dark=d) for d in (False, True))
        self.assertGreater(luminance(light["background"]), .9)
        self.assertLess(luminance(light["ink"]), .5)
        self.assertLess(luminance(dark["background"]), .2)
        self.assertGreater(luminance(dark["ink"]), .6)

    def test_screenshots(self):
        for name, width, scheme in (("wide-light", 1280, 1), ("wide-dark", 1280, 0), ("narrow-light", 390, 1), ("narrow-dark", 390, 0)):
            png = self.one / f"{name}.png"
            chromium(f"--screenshot={png}", f"--window-size={width},2400", f"--blink-settings=preferredColorScheme={scheme}",
                     (self.one / "report.html").as_uri())
            data = png.read_bytes()
            self.assertEqual(data[:8], b"\x89PNG\r\n\x1a\n")
            self.assertEqual(struct.unpack(">II", data[16:24]), (width, 2400))
            self.assertGreater(len(data), 30000)  # an empty page compresses to a few kilobytes

    def test_prints_to_pdf(self):
        for folder in (self.one, self.several):
            pdf = folder / "report.pdf"
            chromium(f"--print-to-pdf={pdf}", "--no-pdf-header-footer", (folder / "report.html").as_uri())
            self.assertTrue(pdf.read_bytes().startswith(b"%PDF"))
            info = subprocess.run(["pdfinfo", pdf], capture_output=True, text=True, check=True).stdout
            self.assertGreater(int(re.search(r"Pages:\s+(\d+)", info).group(1)), 5)
            self.assertIn("A4", info)
            text = subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True).stdout
            for part in ("Registered before the first measurement", "03 step 0.75", "not preserved", "Two runtimes in one pipeline",
                         "not run: no int8 weights", "Pareto front"):
                self.assertIn(part, text)

    def test_hostile_text_stays_text(self):
        run = json.loads(GPU.read_text())
        run["id"] = run["title"] = run["device_name"] = run["boundary"] = EVIL
        run["remarks"] = [EVIL]
        run["registration"] |= {"status": "changed", "changes": [EVIL]}
        run["regions"] = [[EVIL + name, labels] for name, labels in run["regions"]]
        run["case_ids"] = [EVIL + c for c in run["case_ids"]]
        for s in run["settings"]:
            s["description"] = EVIL
            s.setdefault("values", {})["<b>key</b>"] = EVIL
            s["failures"] = [EVIL]
            for c in s.get("per_case", []):
                c["case_id"] = EVIL + c["case_id"]
        evil = OUT / "evil.json"
        evil.write_text(json.dumps(run))
        folder = report("evil", evil, options=("--title", EVIL))
        for width in (360, 1280):
            seen = look(folder, width, dark=False)
            self.assertIsNone(seen["pwned"])
            self.assertEqual((seen["scripts"], seen["images"]), (1, 0))  # the one script is the check itself
            self.assertLessEqual(seen["scroll"], width, seen["wide"])
        markdown = (folder / "report.md").read_text()
        self.assertNotIn("<script", markdown)
        self.assertNotIn("<img", markdown)

    def test_twin_stands_alone(self):
        markdown = (self.several / "report.md").read_text()
        figures = re.findall(r"\]\((figures/[a-z0-9-]+\.svg)\)", markdown)
        self.assertGreater(len(figures), 10)
        self.assertEqual(len(figures), len(set(figures)))
        for f in figures:
            self.assertIn("<svg", (self.several / f).read_text())
        # Every table of the page is in the twin, and every row has as many cells as its head.
        self.assertEqual(markdown.count("**Table "), (self.several / "report.html").read_text().count("<table>"))
        width = None
        for line in markdown.splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
            if cells and width:
                self.assertEqual(cells, width, line)
            width = cells
        self.assertIn("published table not available to us", markdown)


class Compare(unittest.TestCase):
    def test_beside_published_tables(self):
        out = json.loads(isoline("compare", GPU, CPU, SOURCE / "docs/reference/step-6a-rtx4080.json",
                                 SOURCE / "docs/reference/exp-isodice-001-rtx4090.json", "--price-per-hour", "2", "--json"))
        self.assertEqual(out["baseline"], "EXP-TEST-GPU:B0")
        rows = {(r["run"], r["setting"]): r for r in out["settings"]}
        trt = rows["Step 6A, RTX 4080 16GB", "Triton TensorRT EP"]
        self.assertAlmostEqual(trt["speed_x"]["value"], 219.2 / 336.5, 6)
        self.assertIsNone(trt["j_per_case"]["value"])
        self.assertEqual(rows["EXP-ISODICE-001, RTX 4090", "B0"]["s_per_case"], {"value": None, "reason": "published table not available to us"})
        self.assertAlmostEqual(rows["EXP-TEST-GPU", "B0"]["cost_per_case"]["total"]["value"],
                               rows["EXP-TEST-GPU", "B0"]["s_per_case"]["value"] / 3600 * 2, 9)
        self.assertEqual([m["setting"] for m in out["setting_for_setting"]], ["B0", "01 half precision", "03 step 0.75"])

    def test_refusals_name_what_differs(self):
        other = json.loads(CPU.read_text())
        other["provenance"]["cases_sha256"] = "00" * 32
        path = OUT / "other_cases.json"
        OUT.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(other))
        for command in (("compare", GPU, path), ("report", GPU, path, "-o", OUT / "refused")):
            said = isoline(*command, code=2)
            for part in ("cases_sha256", str(GPU), str(path)):
                self.assertIn(part, said)
            self.assertEqual(said.count("\n"), 1)  # one clear error
        self.assertFalse((OUT / "refused").exists())
        self.assertIn("--baseline", isoline("compare", GPU, "--baseline", "nothing", code=2))
        self.assertIn("--price-per-hour", isoline("compare", GPU, "--price-per-hour", "-1", code=2))
        self.assertIn("summary", isoline("compare", SOURCE / "README.md", code=4))
        isoline("compare", OUT / "not-there", code=3)


if __name__ == "__main__":
    if not CHROMIUM:
        print("skipped: no headless Chromium (Debian: chromium-headless-shell)")
        sys.exit(77)
    unittest.main(verbosity=2)
