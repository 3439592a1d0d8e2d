#!/usr/bin/env bash
# Writes the lock files of this folder from the dependencies that pyproject.toml declares.
#
#   thirdparty/lock.sh             keep the pinned versions that still fit
#   thirdparty/lock.sh --upgrade   take the newest versions
#
# requirements-test.txt is resolved first; the others are parts of it, so all of them agree on every version.
# They hold for Python 3.11 and later, on Linux and Windows. Needs Python 3.11 and the package registry.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

tool=$(mktemp -d)
trap 'rm -rf -- "$tool"' EXIT
python3 -m venv "$tool"
"$tool/bin/python" -m pip install --quiet uv

compile() { # lock file, further arguments
    local lock=thirdparty/$1
    shift
    "$tool/bin/uv" pip compile pyproject.toml --quiet --no-config --universal --python-version 3.11 --generate-hashes \
        --only-binary :all: --no-emit-index-url --custom-compile-command thirdparty/lock.sh --output-file "$lock" "$@"
    echo "$lock"
}

compile requirements-test.txt --extra fleet --extra lab --extra test --extra windows "$@"
compile requirements-lab.txt --extra lab --constraints thirdparty/requirements-test.txt
compile requirements-fleet.txt --extra fleet --constraints thirdparty/requirements-test.txt
compile requirements-windows.txt --extra windows --constraints thirdparty/requirements-test.txt
compile requirements.txt --constraints thirdparty/requirements-test.txt
