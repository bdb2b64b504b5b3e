#!/usr/bin/env bash
# Train on a cluster with SLURM: GPUS (default: 8) processes, GPUS_PER_NODE (8) a node.
set -euo pipefail
usage="usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]"
partition=${1:?$usage} job_name=${2:?$usage} config=${3:?$usage}
work_dir=${4:?$usage}
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
