#!/usr/bin/env bash
# Trains a text classifier under PyTorch Lightning, scores dev, writes submission files. Without arguments: on the bundled sample of
# sentence pairs, from scratch.
#
#   bash scripts/run_pl_glue.sh
#   TASK=RTE DATA_DIR=/data/glue MODEL_NAME_OR_PATH=bert-base-uncased \
#       bash scripts/run_pl_glue.sh --num_train_epochs 3 --learning_rate 2e-5
#
# Flags after the script's name are passed on and win; see python run_pl_glue.py --help.
set -euo pipefail
source "$(dirname "$0")/environment.sh" requirements.txt
TASK="${TASK:-MRPC}"
FLAGS=(
    --task "$TASK"
    --data_dir "${DATA_DIR:-$ROOT/datasets/sample_pairs}"
    --output_dir "${OUTPUT_DIR:-$ROOT/outputs/pl_${TASK,,}}"
    --do_train --do_predict
    --overwrite_output_dir
    --feature_cache_dir "$ROOT/outputs/feature_cache"
    --train_batch_size 32
    --eval_batch_size 128
    --warmup_proportion 0.1
)
if [[ -z "${MODEL_NAME_OR_PATH:-}" ]]; then
    # A small encoder that learns from nothing wants higher rates and more passes than a pretrained one.
    FLAGS+=(
        --model_name_or_path "$ROOT/datasets/sample_pairs/encoder" --from_scratch
        --learning_rate 1e-3 --num_train_epochs 5
    )
else
    FLAGS+=(--model_name_or_path "$MODEL_NAME_OR_PATH" --learning_rate 3e-5 --num_train_epochs 3)
fi

python "$ROOT/run_pl_glue.py" "${FLAGS[@]}" "$@"
