"""Sampling from the mix by way of the drafter: speculative sampling that does not depend on what was drafted.

Speculative sampling (Leviathan et al., arXiv 2211.17192) draws a draft from the drafter's q, accepts it with
probability min(1, p / q), and otherwise draws from what p has more than q. Here all of it follows from the request's
seed and the position: the same draft can be drawn again from the drafter's logits, which the verifying pass has too.
So the token at a position is a function of p, q, seed and position, whether it was drafted or not. A draft is right if
it is that token, and the answer of a request does not depend on the number of drafts, on preemption or on the batch.

Logits are float32, seeds and positions int64, all on one device. Only on a CPU does anything wait for a result.
"""

from __future__ import annotations

import torch
from vllm.triton_utils import HAS_TRITON

from vllm_rast.engine.noise import ACCEPT, DRAFT, RESIDUAL, row_seeds, uniforms
from vllm_rast.kernels.select import native

if HAS_TRITON:
    from vllm.v1.worker.gpu.sample.gumbel import gumbel_sample

SMALLEST = torch.finfo(torch.float32).tiny
ROWS_AT_ONCE = 256  # of the mix that have copies in memory: 160 MB each, of 152,000 ids


def has_kernel(logits: torch.Tensor) -> bool:
    """Whether csrc/draw_cpu.cpp draws from these: the same samples as here, in a tenth of the time and without copies.

    Its noise is that of vLLM's C++ for CPUs.
    """
    return logits.device.type == "cpu" and not HAS_TRITON and native("cpu")


def draw(logits: torch.Tensor, seeds: torch.Tensor, temperatures: torch.Tensor | None = None) -> torch.Tensor:
    """A sample of softmax(logits / temperature) for each row, [n]: the largest of these logits and Gumbel noise.

    logits: [n, vocab]. seeds, temperatures: [n]; without a temperature, or with 0, the logits count as they are. With
    Triton by vLLM's kernel, whose noise differs from that of its C++ for CPUs.
    """
    if has_kernel(logits):
        return torch.ops.vllm_rast.draw(logits.float(), temperatures, seeds)
    logits = over(logits, temperatures)
    if not HAS_TRITON:
        return torch.ops._C.fused_gumbel_argmax(logits.contiguous(), seeds)
    ones = torch.ones(len(logits), dtype=torch.float32, device=logits.device)
    rows = torch.arange(len(logits), device=logits.device)
    zeros = torch.zeros_like(seeds)
    return gumbel_sample(logits, rows, ones, seeds, zeros, apply_temperature=False, is_drafting=False)


def over(logits: torch.Tensor, temperatures: torch.Tensor | None) -> torch.Tensor:
    """Logits over each row's temperature, [n, vocab] in float32; as they are, if that is 0 or there is none."""
    if temperatures is None:
        return logits.float()
    return logits.float() / torch.where(temperatures > 0, temperatures, 1).unsqueeze(1)


def draw_drafts(
    logits: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor, temperatures: torch.Tensor | None = None
) -> torch.Tensor:
    """The drafts at positions, [n], from the drafter's logits, [n, vocab]; see `draw`."""
    return draw(logits, row_seeds(seeds, positions, DRAFT), temperatures)


def draw_coupled(
    p: torch.Tensor,
    q: torch.Tensor,
    seeds: torch.Tensor,
    positions: torch.Tensor,
    temperatures: torch.Tensor | None = None,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """A sample of softmax(p) for each row that is the draft of softmax(q / temperature) as often as can be, [n].

    p: the mix's logits as they are to be sampled from, [n, vocab]. q: the drafter's, [any number of rows, up to vocab].
    seeds, positions: [n]. temperatures: the drafter's, [n]; 0 counts as 1, as they all do by default. rows: the row of
    q for each of p, [n]; the same by default.
    """
    if has_kernel(p):
        return torch.ops.vllm_rast.draw_coupled(p, q.float(), rows, temperatures, seeds, positions)
    q = over(q if rows is None else q[rows], temperatures)
    parts = (p, q, seeds, positions)
    if len(p) <= ROWS_AT_ONCE:
        return draw_some(*parts)
    return torch.cat([draw_some(*some) for some in zip(*(part.split(ROWS_AT_ONCE) for part in parts), strict=True)])


def draw_some(p: torch.Tensor, q: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """`draw_coupled` for as many rows as there is room for copies."""
    drafts = draw_drafts(q, seeds, positions)
    places = drafts.unsqueeze(1)
    # Not log_softmax: as fast on a CPU, and off by 1e-5 for 152,000 ids in float32, where logsumexp is by 1e-6.
    ratio = p.gather(1, places).squeeze(1) - p.logsumexp(1) - q.gather(1, places).squeeze(1) + q.logsumexp(1)
    accepted = uniforms(seeds, positions, ACCEPT) < ratio.double().exp()
    if p.device.type != "cpu":  # asking which are left would wait for the device
        return torch.where(accepted, drafts, draw_residual(p, q, seeds, positions))
    (rest,) = (~accepted).nonzero(as_tuple=True)
    if len(rest):
        drafts[rest] = draw_residual(p[rest], q[rest], seeds[rest], positions[rest])
    return drafts


def draw_residual(p: torch.Tensor, q: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """A sample of what softmax(p) has more than softmax(q), [n]; shapes as in `draw_coupled`."""
    more = p.softmax(1)
    more[:, : q.shape[1]] -= q.softmax(1)
    nothing = more <= 0
    # On a CPU the logarithm of 0 takes ten times as long as that of other numbers.
    logs = more.clamp_(min=SMALLEST).log_().masked_fill_(nothing, -torch.inf)
    # Nothing is left only where both agree to the last bit and the sums' rounding refused the draft.
    logs = torch.where(nothing.all(1, keepdim=True), p, logs)
    return draw(logs, row_seeds(seeds, positions, RESIDUAL))
