#!/usr/bin/env bash
# From annotated sets to the shipped models: fit, choose thresholds on validation, export, score on test.
# DATA: see README.md. Every step resumes where it was interrupted.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
data="${DATA:?set DATA to the folder that holds the sets named in README.md}"
out="${OUT:-runs/default-model}"

# glibc gives freed memory back to the system and zeroes it again for every activation; keeping it saves a third.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456

kumar=("$data/kumar-train16" --mpp 0.25 --patient '(TCGA-..-....)' --split "$here/split.json")
# CoNSeP's classes under the names that the model tells
types="malignant_epithelial=Epithelial,healthy_epithelial=Epithelial,inflammatory=Inflammatory,other=Other"
types+=",fibroblast=Spindle-shaped,muscle=Spindle-shaped,endothelial=Spindle-shaped"
tnbc=("$data/tnbc" --mpp 0.25 --patient '(\d+)_' --split "$data/tnbc/split.json")

# finish NAME FITTED OPTION...: export with these options, choose thresholds on validation patients, export with the
# thresholds, score on all parts
finish() {
  local name=$1 fitted=$2 model="$out/$1.safetensors" set
  shift 2
  wsipipe models export "$fitted" -o "$out/$name-untuned.safetensors" --half --max-diameter-um 28 --growth-um 3.5 "$@"
  for set in kumar tnbc; do
    local -n options=$set
    wsipipe evaluate "${options[@]}" --part val --tune --model "$out/$name-untuned.safetensors" -o "$out/tune/$name/$set"
  done
  # shellcheck disable=SC2046  # the rules are several words
  wsipipe models export "$out/$name-untuned.safetensors" -o "$model" --half \
    $(python "$here/choose.py" "$out/tune/$name/kumar" "$out/tune/$name/tnbc")
  for part in val test; do
    wsipipe evaluate "${kumar[@]}" --part "$part" --model "$model" -o "$out/scores/$name/kumar-$part"
    wsipipe evaluate "${tnbc[@]}" --part "$part" --model "$model" -o "$out/scores/$name/tnbc-$part"
  done
  echo "model: $model; scores: $out/scores/$name"
}

wsipipe fit --config "$here/fit.toml" --root "$data" -o "$out/first"
wsipipe fit --config "$here/refine.toml" --backbone "$out/first/model.safetensors" --root "$data" -o "$out/refined"
wsipipe fit --config "$here/polish.toml" --backbone "$out/refined/model.safetensors" --root "$data" -o "$out/polished"
wsipipe fit --config "$here/colon.toml" --backbone "$out/polished/model.safetensors" --root "$data" -o "$out/colon"
polished="$out/polished/model.safetensors" colon="$out/colon/model.safetensors"
python "$here/average.py" "$out/start.safetensors" "$polished" "$colon" "$colon" "$colon"
wsipipe fit --config "$here/sharp.toml" --backbone "$out/start.safetensors" --root "$data" -o "$out/sharp"
wsipipe fit --config "$here/wide.toml" --backbone "$out/sharp/model.safetensors" --root "$data" -o "$out/wide"
wsipipe fit --config "$here/types.toml" --backbone "$out/wide/model.safetensors" --root "$data" -o "$out/typed"
finish cmd-t "$out/typed/model.safetensors" --no-normalise --clump-threshold 0.4 --min-type-probability 0.4
wsipipe evaluate "$data/consep-train27" --mpp 0.25 --split "$here/consep-split.json" --part val --classes "$types" \
  --model "$out/cmd-t.safetensors" -o "$out/scores/cmd-t/types"

wsipipe fit --config "$here/open.toml" --root "$data" -o "$out/open"
wsipipe fit --config "$here/open-polish.toml" --backbone "$out/open/model.safetensors" --root "$data" -o "$out/open-polished"
finish cmd-t-open "$out/open-polished/model.safetensors"
