"""A strict reader of Prometheus' text format: what promtool would refuse, and what a scraper would misread, is an error."""
import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}


class Family:
    def __init__(self, name):
        self.name, self.help, self.type, self.samples = name, None, None, {}


def labels_of(text):
    out, at = {}, 0
    while at < len(text):
        m = LABEL.match(text, at)
        assert m, f"malformed labels: {text}"
        assert m[1] not in out, f"label {m[1]} twice: {text}"
        out[m[1]] = re.sub(r"\\(.)", lambda e: "\n" if e[1] == "n" else e[1], m[2])
        at = m.end()
    return out


def parse(text):
    """{family: Family}; samples: {(sample name, frozenset of labels): value}."""
    assert text.endswith("\n"), "the last line must end"
    families, current = {}, None
    for line in text.split("\n")[:-1]:
        assert line == line.strip() and line, f"blank or padded line: {line!r}"
        if line.startswith("#"):
            kind, name, rest = re.fullmatch(rf"# (HELP|TYPE) ({NAME}) (.+)", line).groups()
            if kind == "HELP":
                assert name not in families, f"{name}: HELP twice, or samples apart"
                current = families[name] = Family(name)
                current.help = rest
            else:
                assert current and current.name == name and current.type is None and not current.samples, f"TYPE of {name} out of place"
                assert rest in TYPES, line
                current.type = rest
            continue
        m = SAMPLE.fullmatch(line)
        assert m, f"malformed line: {line}"
        name, value = m[1], float(m[3])
        assert current and current.type, f"{name} has no TYPE"
        suffixes = ("_bucket", "_sum", "_count") if current.type == "histogram" else ("",)
        assert name in [current.name + s for s in suffixes], f"{name} stands under {current.name}"
        key = (name, frozenset(labels_of(m[2] or "").items()))
        assert key not in current.samples, f"twice: {line}"
        current.samples[key] = value
    for family in families.values():
        assert family.type, family.name
        check(family)
    return families


def check(family):
    for (name, labels), value in family.samples.items():
        if family.type in ("counter", "histogram"):
            assert value >= 0 and math.isfinite(value), (name, value)
    if family.type != "histogram":
        return
    buckets = {}
    for (name, labels), value in family.samples.items():
        rest = dict(labels)
        if name.endswith("_bucket"):
            bound = rest.pop("le")
            buckets.setdefault(frozenset(rest.items()), []).append((float(bound), value))
        else:
            assert "le" not in rest, name
    assert len(buckets) * 2 + sum(map(len, buckets.values())) == len(family.samples), f"{family.name}: _sum or _count is missing"
    for labels, rows in buckets.items():
        assert rows == sorted(rows), f"{family.name}: buckets out of order"
        counts = [n for _, n in rows]
        assert counts == sorted(counts), f"{family.name}: buckets are not cumulative"
        assert rows[-1][0] == math.inf, f"{family.name}: no +Inf"
        assert family.samples[(family.name + "_count", labels)] == counts[-1], f"{family.name}: _count is not the +Inf bucket"


def check_monotone(before, after):
    """No counter of two scrapes went back or vanished."""
    for name, family in before.items():
        if family.type not in ("counter", "histogram"):
            continue
        for key, value in family.samples.items():
            if key[0].endswith("_sum") and family.type == "histogram":
                continue
            assert after[name].samples[key] >= value, (key, value, after[name].samples[key])


def value(families, name, **labels):
    """The one sample whose labels include these, or None."""
    found = [v for f in families.values() for (n, have), v in f.samples.items() if n == name and labels.items() <= dict(have).items()]
    assert len(found) < 2, (name, labels, found)
    return found[0] if found else None
