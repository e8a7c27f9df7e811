"""Logit arithmetic between language models inside vLLM: base + alpha * (positive - negative)."""

__version__ = "0.1.0"
