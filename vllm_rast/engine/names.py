"""What a new release of vLLM may change first: the names by which it finds us, and the releases that are supported."""

from __future__ import annotations

LOAD_FORMAT = "rast"
WORKER_CLS = "vllm_rast.engine.worker.RastWorker"
SUPPORTED_VLLM = ("0.32", "0.33")
