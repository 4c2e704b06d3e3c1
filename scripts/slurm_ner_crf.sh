#!/usr/bin/env bash
#SBATCH --job-name=ner_crf
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Trains BERT-CRF under Slurm, a task for each GPU, on the nodes that sbatch is asked for. From the project's folder:
#
#   TASK_NAME=cner DATA_DIR=/data/cner MODEL_NAME_OR_PATH=bert-base-chinese \
#       sbatch --nodes=2 scripts/slurm_ner_crf.sh --num_train_epochs 4
#
# Two minutes before its time is over, or when preempted, the training writes a checkpoint and the job goes back into
# the queue; started again it goes on from there. Data, encoder and OUTPUT_DIR must be on a disk that all nodes see.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this script is for sbatch}" # Slurm runs a copy of it from elsewhere
source scripts/environment.sh requirements.txt
source "$ROOT/scripts/ner_defaults.sh"

OUTPUT_DIR="${OUTPUT_DIR:-$ROOT/outputs/${TASK_NAME}_crf_$SLURM_JOB_ID}" # the same when the job is started again
mkdir -p "$OUTPUT_DIR"
export ROOT REQUEUE_MARK="$OUTPUT_DIR/.requeue"
rm -f "$REQUEUE_MARK"

MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MASTER_ADDR MASTER_PORT="$((15000 + SLURM_JOB_ID % 10000))"
export WORLD_SIZE="$SLURM_NTASKS" LOCAL_WORLD_SIZE="$SLURM_NTASKS_PER_NODE"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

run_task() {
    trap '' USR1 # outside of the training, which listens itself, the signal means nothing
    trap : TERM  # python may finish its step; bash waits for it
    local code=0
    RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID" python "$ROOT/run_ner_crf.py" "$@" || code=$?
    if ((code == 75)); then # stopped after a checkpoint: no failure for which srun should kill the others
        touch "$REQUEUE_MARK"
        code=0
    fi
    return "$code"
}
export -f run_task

srun --kill-on-bad-exit=1 bash -c 'run_task "$@"' run_task "${NER_FLAGS[@]}" \
    --output_dir "$OUTPUT_DIR" \
    --crf_learning_rate "$HEAD_LEARNING_RATE" \
    --save_steps -1 --save_total_limit 2 \
    --resume_from_checkpoint auto \
    "$@"

if [[ -e "$REQUEUE_MARK" ]]; then
    rm "$REQUEUE_MARK"
    scontrol requeue "$SLURM_JOB_ID"
fi
