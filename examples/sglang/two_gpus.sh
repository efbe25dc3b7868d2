#!/usr/bin/env bash
# Policy on the first GPU, reward model on the second.
set -euo pipefail
POLICY=${POLICY:-meta-llama/Llama-3.1-8B-Instruct}
PRM=${PRM:-RLHFlow/Llama3.1-8B-PRM-Deepseek-Data}

CUDA_VISIBLE_DEVICES=0 python -m sglang.launch_server --model-path "$POLICY" --port 30000 --enable-cache-report &
# A reward model that answers with label tokens is an ordinary server: no --is-embedding.
CUDA_VISIBLE_DEVICES=1 python -m sglang.launch_server --model-path "$PRM" --port 30001 --enable-cache-report &
wait

#   ets eval --policy "$POLICY" --engine sglang:http://127.0.0.1:30000 \
#            --prm "$PRM" --prm-engine sglang:http://127.0.0.1:30001 \
#            --method ets --width 64 --concurrency 64 --data problems.jsonl --out runs/ets-64
#
# For steps that depend on their seeds, start the policy with --enable-deterministic-inference; `ets doctor` says
# whether seeds are honoured, and the run record keeps it.
