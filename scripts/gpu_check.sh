#!/usr/bin/env bash
# Checks and measures everything that needs a GPU, in less than 10 minutes; writes outputs/gpu_check/gpu.md and gpu.json.
#
#   bash scripts/gpu_check.sh
#   bash scripts/gpu_check.sh --dry_run     # the same commands at a tiny size, on the CPU
set -euo pipefail
source "$(dirname "$0")/environment.sh" requirements-dev.txt

cd "$ROOT"
python -m benchmarks.gpu "$@"
