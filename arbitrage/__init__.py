"""Arbitrage (arXiv 2512.05033): routing each step between a draft and a target model."""
