#!/usr/bin/env bash
# From annotated sets to the shipped cmd-t: fit, tune thresholds on validation, score on test. DATA: see README.md.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
data="${DATA:?set DATA to the folder that holds kumar-train16, tnbc and dsb2018-brightfield}"
out="${OUT:-runs/default-model}"

# glibc gives freed memory back to the system and zeroes it again for every activation; keeping it saves a third.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456

wsipipe fit --config "$here/fit.toml" --root "$data" -o "$out"
