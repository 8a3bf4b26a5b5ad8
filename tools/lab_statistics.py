#!/usr/bin/env python3
"""Runs the simulation of the lab's decisions and writes its table: lab_statistics.py STATS_SIMULATION [REPETITIONS]."""
import datetime
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    repetitions = sys.argv[2] if len(sys.argv) == 3 else "4000"
    table = subprocess.run([sys.argv[1], repetitions], check=True, stdout=subprocess.PIPE, text=True).stdout
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    path = ROOT / "docs" / "measurements" / f"{datetime.date.today()}-lab-statistics.md"
    path.write_text(f"""# Error rates of the lab's decisions, {datetime.date.today()}

Command: `python3 tools/lab_statistics.py STATS_SIMULATION {repetitions}`, commit `{commit}`. What the columns mean and what
follows from them: [guides/statistics.md](../guides/statistics.md).
False "preserved" should be at most 5 %, the interval should hold the mean at least 95 % of the time.

{table}""")
    print("wrote", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
