#!/bin/sh
# Builds the libFuzzer targets, runs each for SECONDS (default 600) on the kept corpus plus out/fuzz, and writes the
# figures to docs/measurements. Fails on a finding. FUZZ_TARGETS names some of them only. `fuzz.sh report` writes the figures of the last run again.
set -eu
cd "$(dirname "$0")/.."
targets="${FUZZ_TARGETS:-nifti plans checkpoint lab image config rest protobuf http http2}"

report() {
  file="docs/measurements/$(date +%F)-fuzz${FUZZ_TARGETS:+-some}.md"
  {
    echo "# Fuzzing, $(date +%F)"
    echo
    echo "libFuzzer, clang $(clang --version | sed -n 's/.*version \([0-9.]*\).*/\1/p' | head -1), AddressSanitizer and UBSan."
    echo "Commit \`$(cat out/fuzz/commit)\`. Command: \`make fuzz\`. Started from tests/fuzz/corpus: seeds and what earlier runs kept."
    echo
    echo "| target | runs | seconds | new units | peak RSS MB | findings |"
    echo "|---|---|---|---|---|---|"
    for t in $targets; do
      log="out/fuzz/$t.log"
      echo "| $t | $(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log") | $(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "$log") |" \
        "$(sed -n 's/^stat::new_units_added: *//p' "$log") | $(sed -n 's/^stat::peak_rss_mb: *//p' "$log") |" \
        "$(find out/fuzz/findings -name "$t-*" | wc -l) |"
    done
  } >"$file"
  echo "wrote $file"
}

if [ "${1:-}" = report ]; then
  report
  exit
fi
seconds="${1:-600}"
for p in clang libclang-rt-14-dev; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || {
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$p" >/dev/null
  }
done
cmake --preset fuzz -DCMAKE_CXX_COMPILER_LAUNCHER=ccache >/dev/null
# shellcheck disable=SC2046,SC2086  # one word a target
cmake --build --preset fuzz --target $(printf '%s_fuzz ' $targets)
mkdir -p out/fuzz/findings
git rev-parse --short=12 HEAD >out/fuzz/commit
tar -C out/fuzz -xJf tests/fuzz/corpus/kept.tar.xz  # what earlier runs found, merged to what adds coverage
for t in $targets; do
  mkdir -p "out/fuzz/$t"
  echo "fuzz: $t for $seconds s"
  code=0
  "build-fuzz/fuzz/${t}_fuzz" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=60 -print_final_stats=1 \
    -artifact_prefix="out/fuzz/findings/$t-" "out/fuzz/$t" "tests/fuzz/corpus/$t" >"out/fuzz/$t.log" 2>&1 || code=$?
  if [ "$code" -ne 0 ]; then
    tail -n 40 "out/fuzz/$t.log" >&2
    echo "fuzz: $t has a finding in out/fuzz/findings" >&2
    exit 1
  fi
done
report
