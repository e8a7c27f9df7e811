"""What is left of an engine in this process, and how it goes."""

from __future__ import annotations

import gc


def forget_engines() -> None:
    """Leave nothing of the engines of this process to the next one."""
    import torch
    from vllm.distributed import cleanup_dist_env_and_memory

    # Process groups are made with the first engine, those of experts if that has some. This collects garbage, too.
    cleanup_dist_env_and_memory()
    torch.set_num_threads = torch._C.set_num_threads  # which vLLM replaces on a CPU
    torch.set_num_threads(1)  # which numba changes when n-grams draft
    gc.freeze()  # vLLM collects garbage often as it starts: 0.4 s each time, with all that was imported
