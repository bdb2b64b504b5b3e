#!/usr/bin/env bash
# PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
set -euo pipefail
partition=$1 job_name=$2 config=$3 work_dir=$4
shift 4
root="$(cd "$(dirname "$0")/.." && pwd)"
gpus="${GPUS:-8}"
gpus_per_node="${GPUS_PER_NODE:-8}"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" srun -p "$partition" \
    --job-name="$job_name" --gres="gpu:$gpus_per_node" --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$root/tools/train.py" "$config" --work-dir="$work_dir" \
    --launcher slurm "$@"
