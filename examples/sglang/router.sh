#!/usr/bin/env bash
# Many policy servers behind one address. The policy "manual" keeps the requests of one routing key on one worker, and
# this project sends a search tree's id as its key, so that a tree shares one cache.
set -euo pipefail
POLICY=${POLICY:-meta-llama/Llama-3.1-8B-Instruct}
GPUS=${GPUS:-4}

WORKERS=()
for ((gpu = 0; gpu < GPUS; gpu++)); do
    port=$((30100 + gpu))
    CUDA_VISIBLE_DEVICES=$gpu python -m sglang.launch_server --model-path "$POLICY" --port $port --enable-cache-report &
    WORKERS+=("http://127.0.0.1:$port")
done
python -m sglang_router.launch_router --worker-urls "${WORKERS[@]}" --port 30000 --policy manual &
wait

#   ets eval --policy "$POLICY" --engine sglang:http://127.0.0.1:30000 ...
#
# Without a router, the client does the same by itself, and leaves a server that fails for another:
#   ets eval --policy "$POLICY" --engine sglang:http://127.0.0.1:30100,http://127.0.0.1:30101 ...
