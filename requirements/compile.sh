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
# What torch brings is known only after a first resolution.
brought=$(uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
  -c requirements/corpus.lock requirements/train.in requirements/test.in | grep -oE '^(torch|triton|nvidia|cuda)[a-z0-9-]*')
left_out=()
for name in $brought; do left_out+=(--no-emit-package "$name"); done
compile "$@" -c requirements/corpus.lock "${left_out[@]}" requirements/train.in -o requirements/train.lock
compile "$@" -c requirements/corpus.lock -c requirements/train.lock "${left_out[@]}" requirements/test.in -o requirements/test.lock
if grep -nE '^(torch|triton|nvidia|cuda)|https?://' requirements/*.lock; then
  echo "the lines above do not belong into a lock file" >&2
  exit 1
fi
