#!/usr/bin/env bash
# From annotated sets to the shipped cmd-t: fit, refine, choose thresholds on validation, export, score on test.
# DATA: see README.md. Every step resumes where it was interrupted.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
data="${DATA:?set DATA to the folder that holds kumar-train16, tnbc and dsb2018-brightfield}"
out="${OUT:-runs/default-model}"

# glibc gives freed memory back to the system and zeroes it again for every activation; keeping it saves a third.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456

kumar=("$data/kumar-train16" --mpp 0.25 --patient '(TCGA-..-....)' --split "$here/split.json")
tnbc=("$data/tnbc" --mpp 0.25 --patient '(\d+)_' --split "$data/tnbc/split.json")

wsipipe fit --config "$here/fit.toml" --root "$data" -o "$out/first"
wsipipe fit --config "$here/refine.toml" --backbone "$out/first/model.safetensors" --root "$data" -o "$out/refined"
model="$out/refined/model.safetensors"

wsipipe evaluate "${kumar[@]}" --part val --tune --model "$model" -o "$out/tune-kumar"
wsipipe evaluate "${tnbc[@]}" --part val --tune --model "$model" -o "$out/tune-tnbc"
rules=$(python "$here/choose.py" "$out/tune-kumar/tune.csv" "$out/tune-tnbc/tune.csv")
# shellcheck disable=SC2086  # the rules are several words
wsipipe models export "$model" -o "$out/cmd-t.safetensors" $rules --half

for part in val test; do
  wsipipe evaluate "${kumar[@]}" --part "$part" --model "$out/cmd-t.safetensors" -o "$out/scores/kumar-$part"
  wsipipe evaluate "${tnbc[@]}" --part "$part" --model "$out/cmd-t.safetensors" -o "$out/scores/tnbc-$part"
done
echo "model: $out/cmd-t.safetensors; scores: $out/scores"
