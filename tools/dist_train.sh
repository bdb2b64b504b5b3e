#!/usr/bin/env bash
# Train in several processes of this machine: on its GPUs, else on its CPU.
set -euo pipefail
usage="usage: $0 CONFIG GPUS [options of tools/train.py]"
config=${1:?$usage} gpus=${2:?$usage}
shift 2
root="$(cd "$(dirname "$0")/.." && pwd)"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$root/tools/train.py" "$config" --launcher pytorch "$@"
