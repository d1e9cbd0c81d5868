#!/usr/bin/env bash
# The study of docs/results.md: does pretraining help at this scale, which head, how few images? DATA: see
# ../default-model/README.md, with the set's unlabelled/ folder. Every step resumes where it was interrupted.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
flows="$(dirname "$here")"
data="${DATA:?set DATA to the folder that holds tnbc, kumar-train16, dsb2018-brightfield and unlabelled}"
out="${OUT:-runs/study}"
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456

set=("$data/tnbc" --mpp 0.25 --patient '(\d+)_' --split "$data/tnbc/split.json")
frozen=(--cache-features 4 --steps 600 --validate-every 100)

# run NAME OPTION...: fit a model, score it on the test patients
run() {
  local name=$1
  shift
  wsipipe fit "${set[@]}" "$@" -o "$out/$name"
  wsipipe evaluate "${set[@]}" --model "$out/$name/model.safetensors" -o "$out/$name/test"
}

test -e "$out/backbone/backbone.safetensors" ||
  wsipipe pretrain "${CORPUS:?the corpus of ../default-model/README.md}" --config "$here/pretrain.toml" -o "$out/backbone"
backbone="$out/backbone/backbone.safetensors"

for head in linear light sota cisca; do
  run "$head-pretrained" --config "$flows/head-protocol/$head.toml" --backbone "$backbone" "${frozen[@]}"
done
for head in linear light cisca; do
  run "$head-random" --config "$flows/head-protocol/$head.toml" --backbone T --no-unfreeze "${frozen[@]}"
done
run light-end-to-end --config "$flows/head-protocol/light.toml" --backbone T --steps 300 --validate-every 100
run light-fine-tuned --config "$flows/head-protocol/light.toml" --backbone "$backbone" --unfreeze --steps 300 --validate-every 100

for shots in 1 5 10; do
  for seed in 0 1 2; do
    run "shots-$shots-$seed" --config "$flows/few-shot/shots-$shots.toml" --backbone "$backbone" --seed "$seed"
  done
done
