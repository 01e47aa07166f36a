#!/bin/sh
# One node. N_GPUS=8 RECIPE=recipes/llama3-8b-hard.yaml sh recipes/launch/torchrun.sh [key=value ...]
set -eu
: "${N_GPUS:?how many GPUs this node gives}" "${RECIPE:?recipe file}"
exec torchrun --standalone --nproc_per_node "$N_GPUS" \
  "$(command -v dart-math)" train "$RECIPE" ${1:+--set "$@"}
