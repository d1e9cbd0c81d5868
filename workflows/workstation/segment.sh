#!/usr/bin/env bash
# Segments a folder, pattern or CSV of slides on this machine, with every GPU that it has.
#   segment.sh SLIDES OUT [options of wsipipe segment]        STAGE=DIR: copy slides to a fast disk ahead of time
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,3s/^# *//p' "$0" >&2
  exit 2
fi
slides=$1 out=$2
shift 2

gpus=0
if command -v nvidia-smi >/dev/null 2>&1; then
  gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
fi

options=()
if [ "$gpus" -gt 1 ]; then
  devices=$(seq -s, -f 'cuda:%g' 0 $((gpus - 1)))
  options+=(--devices "$devices")
fi
if [ -n "${STAGE:-}" ]; then
  options+=(--stage "$STAGE")
fi

exec wsipipe segment "$slides" -o "$out/" ${options[@]+"${options[@]}"} "$@"
