"""Engines on servers: SGLang (over HTTP, or in this process) and any OpenAI-compatible server."""

from search.engines.remote.openai import OpenAIEngine
from search.engines.remote.sglang import SglangEngine

__all__ = ["OpenAIEngine", "SglangEngine"]
