#!/usr/bin/env bash
# Makes the virtual environment of the tests that run the real `az`: `.venv-az` at the top of the checkout. It is apart
# from `.venv`, for azure-cli pins the versions of the SDKs that it brings. Remade only when the pin changes.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}
pin=azure-cli==2.91.0
stamp=$("$python" --version; echo "$pin")
if [ "$(cat .venv-az/stamp 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi

echo "venv: making .venv-az with $("$python" --version) and $pin"
rm -rf .venv-az
"$python" -m venv .venv-az
.venv-az/bin/pip install --quiet --disable-pip-version-check "$pin"
# Last, so that an interrupted run starts over.
echo "$stamp" >.venv-az/stamp
