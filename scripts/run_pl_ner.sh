#!/usr/bin/env bash
# Trains a tagger under PyTorch Lightning, tests the best checkpoint. Without arguments: on the bundled sample, from scratch.
#
#   bash scripts/run_pl_ner.sh
#   DATA_DIR=/data/conll2003 MODEL_NAME_OR_PATH=bert-base-cased TASK_TYPE=Chunk \
#       bash scripts/run_pl_ner.sh --num_train_epochs 4 --train_batch_size 32
#
# Flags after the script's name are passed on and win; see python run_pl_ner.py --help.
set -euo pipefail
source "$(dirname "$0")/environment.sh" requirements.txt
TASK_TYPE="${TASK_TYPE:-NER}"
OUTPUT_DIR="${OUTPUT_DIR:-$ROOT/outputs/pl_${TASK_TYPE,,}}"
FLAGS=(
    --task_type "$TASK_TYPE"
    --data_dir "${DATA_DIR:-$ROOT/datasets/sample}"
    --output_dir "$OUTPUT_DIR"
    --do_train --do_predict
    --overwrite_output_dir
    --feature_cache_dir "$ROOT/outputs/feature_cache"
    --train_batch_size 24
    --eval_batch_size 64
    --warmup_proportion 0.1
)
if [[ -z "${DATA_DIR:-}" ]]; then # the sample has other types than CoNLL-2003
    mkdir -p "$OUTPUT_DIR"
    cut -d ' ' -f 2 "$ROOT/datasets/sample/train.txt" | grep . | sort -u > "$OUTPUT_DIR/labels.txt"
    FLAGS+=(--labels "$OUTPUT_DIR/labels.txt")
fi
if [[ -z "${MODEL_NAME_OR_PATH:-}" ]]; then
    # A small encoder that learns from nothing wants higher rates and more passes than a pretrained one.
    FLAGS+=(
        --model_name_or_path "$ROOT/datasets/sample/encoder" --from_scratch
        --learning_rate 1e-3 --num_train_epochs 20
    )
else
    FLAGS+=(--model_name_or_path "$MODEL_NAME_OR_PATH" --learning_rate 3e-5 --head_learning_rate 1e-3 --num_train_epochs 4)
fi

python "$ROOT/run_pl_ner.py" "${FLAGS[@]}" "$@"
