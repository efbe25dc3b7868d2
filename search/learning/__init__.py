"""Training: reward models, routers and probes, from collected data to a checkpoint."""
