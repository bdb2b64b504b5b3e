#!/usr/bin/env bash
# Test in several processes of this machine: on its GPUs, else on its CPU.
set -euo pipefail
usage="usage: $0 CONFIG CHECKPOINT GPUS [options of tools/test.py]"
config=${1:?$usage} checkpoint=${2:?$usage} gpus=${3:?$usage}
shift 3
root="$(cd "$(dirname "$0")/.." && pwd)"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$root/tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
