#!/usr/bin/env bash
# Make the lock files anew (needs uv; it keeps the pins that stand in them): bash requirements/compile.sh [--upgrade]
# torch is left out, with the CUDA wheels that it would bring: with any hash on torch, pip takes the CUDA build even
# where the hash of the CPU build is listed, so torch is pinned by version alone. It is the one exception.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate "$@"
}
compile "$@" requirements/build.in -o requirements/build.lock
compile "$@" --extra spark --extra ray pyproject.toml -o requirements/corpus.lock
# What torch brings is known only after a first resolution, of each file by itself.
compile_without_torch() { # LOCK INPUT...
  local name lock=$1 left_out=()
  shift
  for name in $(uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate "$@" \
    | grep -oE '^(torch|triton|nvidia|cuda)[a-z0-9-]*'); do left_out+=(--no-emit-package "$name"); done
  compile "$@" "${left_out[@]}" -o "$lock"
}
compile_without_torch requirements/train.lock "$@" -c requirements/corpus.lock requirements/train.in
compile_without_torch requirements/test.lock "$@" -c requirements/corpus.lock -c requirements/train.lock requirements/test.in
if grep -nE '^(torch|triton|nvidia|cuda)|https?://' requirements/*.lock; then
  echo "the lines above do not belong into a lock file" >&2
  exit 1
fi
