#!/usr/bin/env bash
# All that needs a GPU, with plain PyTorch (neither Ray nor MLflow): the gpu-marked tests where what they import is installed, then
# students per hour. Meant to take less than 8 minutes on one H100-class device; the last line is JSON.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
TESTED=0
if "$PYTHON" -c 'import pytest, pytest_timeout, pydantic, scipy, pandas, typer, yaml, sklearn'; then
  "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests/trainables/test_{trial,engine,grouped}.py || TESTED=$?
else
  echo "the gpu-marked tests are left out: they need what the line above misses"
fi
"$PYTHON" -m benchmarks.engine --device cuda --rounds 2 --json || exit $?
exit $TESTED
