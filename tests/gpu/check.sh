#!/usr/bin/env bash
# What the local engine does on a GPU, in under ten minutes: exactness, speed against transformers.generate, ETS against
# REBASE, memory. One JSON object on stdout, all else on stderr.
#   tests/gpu/check.sh                        the mini family
#   tests/gpu/check.sh --policy PATH_OR_HUB_ID   and the speed and the searches of a checkpoint
#   tests/gpu/check.sh --device cpu --small   the same in small, without a GPU
set -euo pipefail
cd "$(dirname "$0")/../.."
exec timeout 600 "${PYTHON:-.venv/bin/python}" tests/gpu/check.py "$@"
