"""Arbitrage (arXiv 2512.05033): routing each step between a draft and a target model."""

from arbitrage.models import ModelView
from arbitrage.routers import Always, Judge, LearnedRouter, Never, Oracle, RandomRouter, RouterParts, RsdRouter
from arbitrage.writer import DraftTargetWriter

__all__ = [
    "Always",
    "DraftTargetWriter",
    "Judge",
    "LearnedRouter",
    "ModelView",
    "Never",
    "Oracle",
    "RandomRouter",
    "RouterParts",
    "RsdRouter",
]
