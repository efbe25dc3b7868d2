"""ETS (arXiv 2502.13575): pruning a search tree by reward, KV-cache cost and semantic coverage."""
