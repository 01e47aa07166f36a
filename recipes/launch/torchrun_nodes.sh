#!/bin/sh
# Several nodes: start it on each, with NODE_RANK from 0 to N_NODES - 1; the folder of the run is shared.
set -eu
: "${N_NODES:?how many nodes}" "${NODE_RANK:?which of them this is}" "${N_GPUS:?GPUs per node}"
: "${MASTER_ADDR:?address of node 0}" "${MASTER_PORT:?a free port of node 0}" "${RECIPE:?recipe file}"
exec torchrun --nnodes "$N_NODES" --node_rank "$NODE_RANK" --nproc_per_node "$N_GPUS" \
  --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" \
  "$(command -v dart-math)" train "$RECIPE" ${1:+--set "$@"}
