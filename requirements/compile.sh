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
left_out=()
for name in torch triton $(grep -oE '^(nvidia|cuda)[a-z0-9-]*' requirements/train.lock 2>/dev/null || true) ${LEFT_OUT:-}; do
  left_out+=(--no-emit-package "$name")
done
compile "$@" -c requirements/corpus.lock "${left_out[@]}" requirements/train.in -o requirements/train.lock
compile "$@" -c requirements/corpus.lock requirements/test.in -o requirements/test.lock
if grep -nE '^(torch|triton|nvidia|cuda)|https?://' requirements/*.lock; then
  echo "the lines above do not belong into a lock file: run again, or name them in LEFT_OUT" >&2
  exit 1
fi
