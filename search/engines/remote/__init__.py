"""Engines on servers: SGLang (over HTTP, or in this process), any OpenAI-compatible server, and any chat API."""

from search.engines.remote.chat import ChatEngine
from search.engines.remote.openai import OpenAIEngine
from search.engines.remote.sglang import SglangEngine

__all__ = ["ChatEngine", "OpenAIEngine", "SglangEngine"]
