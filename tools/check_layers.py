#!/usr/bin/env python3
"""Fails when a room includes a header of a room it does not declare, or of one that is not below it.

Order comes from ISOLINE_ROOMS in src/isoline/CMakeLists.txt, declarations from DEPENDS / TEST_DEPENDS in each
room's CMakeLists.txt. backends/<name> count as rooms of their own, level with each other.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent / "src" / "isoline"
INCLUDE = re.compile(r'#include "isoline/([a-z_]+)(?:/([a-z_]+))?/[a-z_0-9]+\.h"')


def room_order():
    text = (ROOT / "CMakeLists.txt").read_text()
    names = re.search(r"set\(ISOLINE_ROOMS\s+(.*?)\)", text, re.S).group(1).split()
    return {name: rank for rank, name in enumerate(names)}


def declared(folder, word):
    text = re.sub(r"#.*", "", (folder / "CMakeLists.txt").read_text())
    found = set()
    for block in re.findall(rf"\b{word}\s+([a-z_\s]+?)(?=\b[A-Z_]{{4,}}\b|\)|\$)", text):
        found |= set(block.split())
    for block in re.findall(r"target_link_libraries\([^)]*\)", text):
        found |= set(re.findall(r"isoline::([a-z_]+)", block))
    return found


def main():
    ranks, problems, files = room_order(), [], 0
    for folder in sorted(p.parent for p in ROOT.rglob("CMakeLists.txt") if p.parent != ROOT):
        if folder == ROOT / "backends":
            continue
        room = folder.relative_to(ROOT).parts[0]
        own = "/".join(folder.relative_to(ROOT).parts)
        deps = declared(folder, "DEPENDS")
        test_deps = deps | declared(folder, "TEST_DEPENDS")
        registry = own == "backends/registry"
        for source in sorted(folder.iterdir()):
            if source.suffix not in {".h", ".cpp", ".cu", ".cuh"}:
                continue
            files += 1
            is_test = source.stem.endswith("_test")  # a backend's test may use the reference backend
            for line, text in enumerate(source.read_text().splitlines(), 1):
                match = INCLUDE.search(text)
                if not match:
                    continue
                target, sub = match.groups()
                other = f"{target}/{sub}" if sub else target
                where = f"{source.relative_to(ROOT.parent.parent)}:{line}"
                if other == own:
                    continue
                if target not in ranks:
                    problems.append(f"{where}: no such room '{target}'")
                elif ranks[target] >= ranks[room] and not (target == "backends" and (registry or is_test)):
                    problems.append(f"{where}: '{own}' must not look up to '{other}'")
                elif target != "backends" and target not in (test_deps if is_test else deps):
                    problems.append(f"{where}: '{own}' includes '{target}' without declaring it in DEPENDS")
    if not files:
        problems.append("no sources found: the check is broken")
    print("\n".join(problems) if problems else f"layers: {files} files in order")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
