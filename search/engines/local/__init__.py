"""The in-process engine: any Hugging Face decoder, shared prefixes computed once, all searches in one batch."""

from search.engines.local.engine import LocalEngine, PoolUse

__all__ = ["LocalEngine", "PoolUse"]
