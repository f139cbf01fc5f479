#!/usr/bin/env bash
# Makes the virtual environment of the end-to-end tests, `.venv` at the top of the checkout. It is remade only when
# requirements.txt or the interpreter changes; otherwise this returns at once.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}
stamp=$("$python" --version; sha256sum tests/python/requirements.txt)
if [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi

echo "venv: making .venv with $("$python" --version) and the packages of tests/python/requirements.txt"
rm -rf .venv
"$python" -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check --requirement tests/python/requirements.txt
# Last, so that an interrupted run starts over.
echo "$stamp" >.venv/stamp
