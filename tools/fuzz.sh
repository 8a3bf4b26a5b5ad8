#!/bin/sh
# Builds the libFuzzer targets and runs each for SECONDS (default 600) on its kept corpus; fails on a finding.
set -eu
cd "$(dirname "$0")/.."
seconds="${1:-600}"
for p in clang libclang-rt-14-dev; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || {
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$p" >/dev/null
  }
done
cmake --preset fuzz -DCMAKE_CXX_COMPILER_LAUNCHER=ccache >/dev/null
cmake --build --preset fuzz
for target in nifti plans checkpoint; do
  mkdir -p "out/fuzz/$target" "out/fuzz/findings"
  echo "fuzz: $target for $seconds s"
  "build-fuzz/fuzz/${target}_fuzz" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 \
    -artifact_prefix="out/fuzz/findings/$target-" "out/fuzz/$target" "tests/fuzz/corpus/$target" 2>&1 |
    tee "out/fuzz/$target.log" | grep -E 'ERROR|SUMMARY|stat::|Done' || true
  if ls "out/fuzz/findings/$target-"* >/dev/null 2>&1; then
    echo "fuzz: $target has findings in out/fuzz/findings" >&2
    exit 1
  fi
done
