#!/usr/bin/env bash
# Everything that only a GPU can show, in one command and at most 8 minutes: `make gpu`, or this file from a bare copy of
# bench/ and models/ with Python 3.12 and torch, numpy, scipy and safetensors. It installs and downloads nothing.
#   DEVICE   cuda (default), or cpu for a dry run at small sizes
#   OUT      folder of the report (default: bench/results, for the dry run runs/gpu-dry-run)
#   PYTHON   interpreter (default: .venv/bin/python if there, else python3)
# as environment variables or as words of the command line: bench/gpu.sh DEVICE=cpu OUT=/tmp/report
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

options=()
while [ $# -gt 0 ]; do
    case "$1" in
        DEVICE=* | OUT=* | PYTHON=*) declare "$1" ;;
        *) options+=("$1") ;;
    esac
    shift
done

DEVICE="${DEVICE:-cuda}"
if [ "$DEVICE" = cpu ]; then OUT="${OUT:-$root/runs/gpu-dry-run}"; else OUT="${OUT:-$root/bench/results}"; fi
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ ! -x "$root/.venv/bin/python" ] || PYTHON="$root/.venv/bin/python"
fi
if ! command -v "$PYTHON" >/dev/null; then
    echo "There is no interpreter $PYTHON; name one with PYTHON=." >&2
    exit 2
fi

export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# The check keeps its own deadline; this ends one that hangs, and leaves the report of the sections before.
limit=()
if command -v timeout >/dev/null; then limit=(timeout --foreground --kill-after=5 475); fi
exec "${limit[@]}" "$PYTHON" -m bench.gpu --device "$DEVICE" --out "$OUT" "${options[@]}"
