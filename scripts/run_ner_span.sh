#!/usr/bin/env bash
# Trains BERT with a span head (starts and ends), scores dev, predicts test. Without arguments: on the bundled sample, from scratch.
#
#   bash scripts/run_ner_span.sh
#   TASK_NAME=cner DATA_DIR=/data/cner MODEL_NAME_OR_PATH=bert-base-chinese \
#       bash scripts/run_ner_span.sh --num_train_epochs 4 --per_gpu_train_batch_size 24
#
# Flags after the script's name are passed on and win; see python run_ner_span.py --help.
set -euo pipefail
source "$(dirname "$0")/environment.sh" requirements.txt
source "$ROOT/scripts/ner_defaults.sh"

python "$ROOT/run_ner_span.py" "${NER_FLAGS[@]}" \
    --output_dir "${OUTPUT_DIR:-$ROOT/outputs/${TASK_NAME}_span}" \
    --head_learning_rate "$HEAD_LEARNING_RATE" \
    "$@"
