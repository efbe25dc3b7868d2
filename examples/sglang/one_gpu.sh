#!/usr/bin/env bash
# Policy and reward model on one GPU: two servers, each with its share of the memory.
# Written for a machine with a GPU; the CPU tests of this project run the same servers without one.
set -euo pipefail
POLICY=${POLICY:-Qwen/Qwen2.5-Math-1.5B-Instruct}
PRM=${PRM:-Qwen/Qwen2.5-Math-PRM-7B}

python -m sglang.launch_server --model-path "$POLICY" --port 30000 --mem-fraction-static 0.35 --enable-cache-report &

# Qwen2.5-Math-PRM is not in SGLang: our model package is, once `pip install --no-deps /path/to/checkout` was done in the
# server's environment. Reward heads are read with --is-embedding.
SGLANG_EXTERNAL_MODEL_PACKAGE=prm.sglang_models \
python -m sglang.launch_server --model-path "$PRM" --port 30001 --mem-fraction-static 0.45 --is-embedding &
wait

# Then, in this project's environment:
#   ets doctor --policy "$POLICY" --engine sglang:http://127.0.0.1:30000 \
#              --prm "$PRM" --prm-engine sglang:http://127.0.0.1:30001
#   ets eval   --policy "$POLICY" --engine sglang:http://127.0.0.1:30000 \
#              --prm "$PRM" --prm-engine sglang:http://127.0.0.1:30001 \
#              --method ets --width 64 --concurrency 32 --data problems.jsonl --out runs/ets-64
