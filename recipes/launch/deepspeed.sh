#!/bin/sh
# DeepSpeed's launcher: starts all nodes of a hostfile (see hostfile.example) over ssh.
set -eu
: "${HOSTFILE:?file with a line 'host slots=GPUs' per node}" "${RECIPE:?recipe file}"
exec deepspeed --hostfile "$HOSTFILE" --no_local_rank \
  "$(command -v dart-math)" train "$RECIPE" ${1:+--set "$@"}
