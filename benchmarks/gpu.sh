#!/usr/bin/env bash
# All that needs a GPU, with plain PyTorch (neither Ray nor MLflow): the gpu-marked tests where pytest is installed, then students
# per hour. Meant to take less than 8 minutes on one H100-class device; the last line is JSON.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
if "$PYTHON" -c 'import pytest, pydantic'; then
  "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests/trainables
fi
"$PYTHON" -m benchmarks.engine --device cuda --rounds 2 --json
