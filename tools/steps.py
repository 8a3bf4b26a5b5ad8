"""What the demos share: a step is a command a user could type; it is printed as it runs."""
import json
import shlex
import subprocess
import sys


def run(isoline, *arguments, capture=False):
    """Runs ISOLINE ARGUMENTS and returns its --json output if `capture`. A failing step ends the demo."""
    command = [str(isoline), *map(str, arguments)]
    print("+", shlex.join(command), flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE if capture else None, text=True)
    if result.returncode:
        sys.exit(f"the command above failed with exit code {result.returncode}")
    return json.loads(result.stdout) if capture else None
