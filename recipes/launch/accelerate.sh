#!/bin/sh
# accelerate, one node or several; precision and DeepSpeed come from the recipe, not from its config file.
set -eu
: "${N_PROCESSES:?processes over all nodes}" "${N_NODES:?how many nodes}" "${NODE_RANK:?which this is}"
: "${MASTER_ADDR:?address of node 0}" "${MASTER_PORT:?a free port of node 0}" "${RECIPE:?recipe file}"
exec accelerate launch --num_processes "$N_PROCESSES" --num_machines "$N_NODES" \
  --machine_rank "$NODE_RANK" --main_process_ip "$MASTER_ADDR" --main_process_port "$MASTER_PORT" \
  --mixed_precision no --dynamo_backend no \
  "$(command -v dart-math)" train "$RECIPE" ${1:+--set "$@"}
