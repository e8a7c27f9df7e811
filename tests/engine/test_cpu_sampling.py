"""vLLM's sampling on a CPU by the CPU library: what vLLM's own functions give, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from vllm.v1.sample.ops import topk_topp_sampler

from vllm_rast.engine import cpu_sampling
from vllm_rast.kernels.select import native

pytestmark = pytest.mark.skipif(
    not native("cpu") or topk_topp_sampler.HAS_TRITON, reason="no CPU library, or vLLM samples with Triton"
)


def random_logits(rows: int) -> torch.Tensor:
    return torch.randn(rows, 5000, generator=torch.Generator().manual_seed(rows)) * 3


def test_samples() -> None:
    logits, seeds = random_logits(64), torch.arange(64) * 7
    before = torch.ops._C.fused_gumbel_argmax(logits, seeds)  # vLLM's, unless an engine ran in this process
    cpu_sampling.sample_with_our_kernels()
    assert torch.equal(torch.ops._C.fused_gumbel_argmax(logits, seeds), before)
    cpu_sampling.sample_with_our_kernels()  # once for each process, however many engines


@pytest.mark.parametrize("k", [None, 1, 20, 3000])
@pytest.mark.parametrize("p", [None, 0.3, 0.95])
def test_top_k_and_top_p(k: int | None, p: float | None) -> None:
    """Rows that want neither among them, and another dtype."""
    cpu_sampling.sample_with_our_kernels()
    logits = random_logits(12)
    ks = None if k is None else torch.tensor([k, 5000, k] * 4, dtype=torch.int32)
    ps = None if p is None else torch.tensor([p, 1.0, 0.5] * 4)
    wanted = cpu_sampling.vllm_apply_top_k_top_p(logits.clone(), ks, ps)
    assert torch.equal(topk_topp_sampler.apply_top_k_top_p(logits.clone(), ks, ps), wanted)
    half = logits.half()
    wanted = cpu_sampling.vllm_apply_top_k_top_p(half.clone(), ks, ps)
    assert torch.equal(topk_topp_sampler.apply_top_k_top_p(half.clone(), ks, ps), wanted)


@pytest.mark.engine
def test_an_engine_samples_with_them(
    start_engine: Callable[..., Any], random_models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr("vllm_rast.engine.worker.sample_with_our_kernels", lambda: calls.append(None))
    start_engine(random_models["base"])
    assert calls == [None]
