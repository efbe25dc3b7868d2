"""Arbitrage (arXiv 2512.05033): routing each step between a draft and a target model."""

from arbitrage.models import ModelView
from arbitrage.routers import Always, Judge, Never, Oracle, RandomRouter, ScoreRouter, parse_router
from arbitrage.writer import DraftTargetWriter

__all__ = [
    "Always",
    "DraftTargetWriter",
    "Judge",
    "ModelView",
    "Never",
    "Oracle",
    "RandomRouter",
    "ScoreRouter",
    "parse_router",
]
