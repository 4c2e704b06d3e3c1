# Sourced by run_ner_*.sh: the flags that they share, for the bundled sample or for a corpus named by the environment.
TASK_NAME="${TASK_NAME:-sample}"
DATA_DIR="${DATA_DIR:-$ROOT/datasets/$TASK_NAME}"
NER_FLAGS=(
    --task_name "$TASK_NAME"
    --data_dir "$DATA_DIR"
    --do_train --do_eval --do_predict
    --overwrite_output_dir
    --feature_cache_dir "$ROOT/outputs/feature_cache"
    --per_gpu_train_batch_size 24
    --per_gpu_eval_batch_size 64
)
if [[ -z "${MODEL_NAME_OR_PATH:-}" ]]; then
    # A small encoder that learns from nothing wants higher rates and more passes than a pretrained one.
    HEAD_LEARNING_RATE=1e-2
    NER_FLAGS+=(
        --model_name_or_path "$ROOT/datasets/sample/encoder" --from_scratch
        --learning_rate 1e-3 --num_train_epochs 20
    )
else
    HEAD_LEARNING_RATE=1e-3
    NER_FLAGS+=(--model_name_or_path "$MODEL_NAME_OR_PATH" --learning_rate 3e-5 --num_train_epochs 4)
fi
