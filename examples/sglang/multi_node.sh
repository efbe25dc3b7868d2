#!/usr/bin/env bash
# One large policy over two machines of eight GPUs each, by tensor parallelism. Run it on both:
#   NODE=0 HEAD=10.0.0.1 ./multi_node.sh        on the first, which serves at port 30000
#   NODE=1 HEAD=10.0.0.1 ./multi_node.sh        on the second
set -euo pipefail
POLICY=${POLICY:-Qwen/Qwen2.5-72B-Instruct}

python -m sglang.launch_server --model-path "$POLICY" --host 0.0.0.0 --port 30000 --enable-cache-report \
    --tp-size 16 --nnodes 2 --node-rank "${NODE:?0 or 1}" --dist-init-addr "${HEAD:?address of the first machine}:20000"

#   ets eval --policy "$POLICY" --engine sglang:http://HEAD:30000 --concurrency 200 --max-requests 1024 ...
