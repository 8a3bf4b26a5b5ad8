#!/bin/sh
# Everything a build on Debian 12 needs: packages of the distribution and, in .venv, the OpenVINO wheel (headers,
# CMake files and libraries; no Python runs at build or run time because of it) and, where there is no CUDA toolkit,
# NVIDIA's compiler wheels (100 MB; no GPU is needed to build). Quick when nothing is missing.
set -eu
cd "$(dirname "$0")/.."

packages="g++ cmake ninja-build ccache clang-format python3 python3-venv pkg-config
  libgtest-dev nlohmann-json3-dev libcli11-dev libdeflate-dev zlib1g-dev libpng-dev
  libjpeg62-turbo-dev libwebp-dev
  libtomlplusplus-dev libssl-dev libboost-dev libnghttp2-dev libsqlite3-dev libb64-0d openssl
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

# nvcc, its headers and the static runtime; cmake/IsolineCuda.cmake looks for them here. ISOLINE_NO_CUDA=1 leaves them out.
cuda="nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85"
if [ -z "${ISOLINE_NO_CUDA:-}" ] && [ -z "${CUDACXX:-}" ] && ! command -v nvcc >/dev/null &&
  [ ! -x /usr/local/cuda/bin/nvcc ] && [ "$(uname -m)" = x86_64 ] &&
  [ "$(cat .venv/isoline-cuda 2>/dev/null)" != "$cuda" ]; then
  # shellcheck disable=SC2086
  .venv/bin/python -m pip install --quiet --no-deps $cuda
  for toolkit in .venv/lib/python3*/site-packages/nvidia/cu13; do
    [ -e "$toolkit/lib64" ] || ln -s lib "$toolkit/lib64" # where nvcc looks for its libraries
  done
  echo "$cuda" >.venv/isoline-cuda
fi
