#!/usr/bin/env bash
# The study of docs/comparing.md#the-study: backbones, then plans. Planned, not run: about 18 hours of two cores. Every step
# goes on where it was interrupted, and does nothing where it is done. SMALL=1: its twin, minutes, to see that it runs.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
plans="$(dirname "$here")/benchmark"
data="$(cd "${DATA:?set DATA to the folder that holds tnbc, consep-train27, nuinsseg-masks and unlabelled}" && pwd)"
small="${SMALL:-}"
out="${OUT:-runs/study-again${small:+-small}}"
root="$out/root"
mkdir -p "$root/models"
for set in tnbc consep-train27; do ln -sfn "$data/$set" "$root/$set"; done

if [ -n "$small" ]; then
  pretrain=(--steps 4 --batch 2 --warmup 1 --snapshots 2)
  corpus=(--cap 2)
  parts=(small)
else
  pretrain=(--snapshots 1000,2000)
  corpus=()
  parts=(linear "" heads few-shot end-to-end)
fi

wsipipe build-corpus "$here/again.csv" --root "$data" --mpp native --max-zoom 2.3 --val 0 \
  --exclude "$here/again.exclude.csv" "${corpus[@]}" -o "$out/corpus.zarr"

# backbone NAME OPTION...: pretrain one by again.toml
backbone() {
  local name=$1
  shift
  wsipipe pretrain "$out/corpus.zarr" --config "$here/again.toml" --name "$name" "${pretrain[@]}" "$@" -o "$root/models/$name"
}

backbone cmd-t
if [ -z "$small" ]; then
  wsipipe pretrain "$out/corpus.zarr" --autoencoder --steps 2000 --batch 8 --lr 3e-4 -o "$out/vae"
  for kind in cmd dit attention-unet; do
    backbone "$kind-t-latents" --backbone "$kind" --space vae --vae "$out/vae"
  done
  backbone vit-t --backbone vit
fi

for part in "${parts[@]}"; do
  wsipipe benchmark "$plans/study${part:+-$part}.toml" --root "$root" -o "$out/${part:-heads-a}"
done
