#!/bin/sh
# Everything a build on Debian 12 needs: packages of the distribution and, in .venv, the OpenVINO wheel (headers,
# CMake files and libraries; no Python runs at build or run time because of it). Quick when nothing is missing.
set -eu
cd "$(dirname "$0")/.."

packages="g++ cmake ninja-build ccache clang-format python3 python3-venv pkg-config
  libgtest-dev nlohmann-json3-dev libcli11-dev libdeflate-dev zlib1g-dev libpng-dev
  libtomlplusplus-dev libssl-dev libboost-dev
  chromium-headless-shell fonts-dejavu-core poppler-utils"
missing=""
for p in $packages; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "setup: these Debian packages are missing, run as root or install them:$missing" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

wheel="openvino==2026.4.1"
if [ "$(cat .venv/isoline-wheel 2>/dev/null)" != "$wheel" ]; then
  python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --no-deps "$wheel"
  echo "$wheel" >.venv/isoline-wheel
fi
