#!/usr/bin/env bash
# Trains one variant with several seeds, each into a folder of its own, and prints mean, deviation and interval.
#
#   bash scripts/run_seeds.sh crf 1 2 3
#   OUTPUT_DIR=outputs/cner_crf_fgm TASK_NAME=cner DATA_DIR=/data/cner MODEL_NAME_OR_PATH=bert-base-chinese \
#       bash scripts/run_seeds.sh crf 1 2 3 --do_adv
#
# The first argument names the script, run_ner_VARIANT.sh; the flags after the seeds are passed on. The folders are
# OUTPUT_DIR_seed1 and so on; compare variants with: python -m analysis.compare_runs "outputs/cner_*_seed*"
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

VARIANT="${1:-}"
if [[ ! -f "$HERE/run_ner_$VARIANT.sh" ]]; then
    echo "run_seeds.sh VARIANT SEED... [flags]: there is no scripts/run_ner_$VARIANT.sh" >&2
    exit 2
fi
shift
SEEDS=()
while [[ "${1:-}" =~ ^[0-9]+$ ]]; do
    SEEDS+=("$1")
    shift
done
if [[ ${#SEEDS[@]} -eq 0 ]]; then
    echo "run_seeds.sh $VARIANT: name at least one seed, a number" >&2
    exit 2
fi

source "$HERE/environment.sh" requirements.txt
STEM="${OUTPUT_DIR:-$ROOT/outputs/${TASK_NAME:-sample}_$VARIANT}"
RUNS=()
for seed in "${SEEDS[@]}"; do
    OUTPUT_DIR="${STEM}_seed$seed" bash "$HERE/run_ner_$VARIANT.sh" "$@" --seed "$seed"
    RUNS+=("$(realpath "${STEM}_seed$seed")")
done
cd "$ROOT"
python -m analysis.compare_runs "${RUNS[@]}"
