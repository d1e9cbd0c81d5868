#!/usr/bin/env bash
# The study of docs/results.md: does pretraining help at this scale, which head, how few images? DATA: see
# ../default-model/README.md, with the set's unlabelled/ folder. Every step resumes where it was interrupted.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
flows="$(dirname "$here")"
data="${DATA:?set DATA to the folder that holds tnbc, kumar-train16, dsb2018-brightfield and unlabelled}"
out="${OUT:-runs/study}"
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456

kumar=("$data/kumar-train16" --mpp 0.25 --patient '(TCGA-..-....)' --split "$flows/default-model/split.json")
tnbc=("$data/tnbc" --mpp 0.25 --patient '(\d+)_' --split "$data/tnbc/split.json")

# run NAME CONFIG OPTION...: fit a model, score it on the test patients
run() {
  local name=$1 config=$2
  shift 2
  wsipipe fit "${tnbc[@]}" --config "$flows/$config.toml" "$@" --keep last -o "$out/$name"
  wsipipe evaluate "${tnbc[@]}" --model "$out/$name/model.safetensors" -o "$out/$name/test"
}

wsipipe build-corpus "$flows/default-model/corpus.csv" --root "$data" --mpp native --max-zoom 2.3 \
  --exclude "$flows/default-model/corpus.exclude.csv" -o "$out/corpus.zarr"
wsipipe pretrain "$out/corpus.zarr" --config "$here/pretrain.toml" -o "$out/backbone"
backbone="$out/backbone/backbone.safetensors"

frozen=(--cache-features 4 --steps 300)
for head in linear light cisca; do
  run "$head-random" "head-protocol/$head" --backbone T --no-unfreeze "${frozen[@]}"
  run "$head-pretrained" "head-protocol/$head" --backbone "$backbone" "${frozen[@]}"
done
run sota-pretrained head-protocol/sota --backbone "$backbone" --cache-features 1 --steps 60
run light-end-to-end head-protocol/light --backbone T --steps 200

for shots in 1 5 10; do
  for seed in 0 1 2; do
    run "shots-$shots-$seed" "few-shot/shots-$shots" --backbone "$backbone" --cache-features 4 --steps 150 --seed "$seed"
  done
done

# the default model another way, on its validation patients
model="$out/pretrained/model.safetensors"
wsipipe fit --config "$here/pretrained.toml" --backbone "$backbone" --root "$data" -o "$out/pretrained"
wsipipe evaluate "${kumar[@]}" --part val --tune --model "$model" -o "$out/pretrained/kumar"
wsipipe evaluate "${tnbc[@]}" --part val --tune --model "$model" -o "$out/pretrained/tnbc"
echo "of both sets together: $(python "$flows/default-model/choose.py" "$out/pretrained/kumar" "$out/pretrained/tnbc")"
