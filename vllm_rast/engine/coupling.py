"""Sampling from the mix by way of the drafter: speculative sampling that does not depend on what was drafted.

Speculative sampling (Leviathan et al., arXiv 2211.17192) draws a draft from the drafter's q, accepts it with
probability min(1, p / q), and otherwise draws from what p has more than q. Here all of it follows from the request's
seed and the position: the same draft can be drawn again from the drafter's logits, which the verifying pass has too.
So the token at a position is a function of p, q, seed and position, whether it was drafted or not. A draft is right if
it is that token, and the answer of a request does not depend on the number of drafts, on preemption or on the batch.
"""

from __future__ import annotations

import numpy as np
import torch

from vllm_rast.engine.noise import ACCEPT, DRAFT, RESIDUAL, row_seeds, uniforms


def draw(logits: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """A sample of softmax(logits) for each row, [n]. logits: [n, vocab] in float32. seeds: [n] in int64."""
    return torch.ops._C.fused_gumbel_argmax(logits.contiguous(), seeds)


def draw_drafts(logits: torch.Tensor, seeds: np.ndarray, positions: np.ndarray) -> torch.Tensor:
    """The drafts at positions, [n], from the drafter's logits over the temperature, [n, vocab]."""
    return draw(logits, row_seeds(seeds, positions, DRAFT))


def draw_coupled(p: torch.Tensor, q: torch.Tensor, seeds: np.ndarray, positions: np.ndarray) -> torch.Tensor:
    """A sample of softmax(p) for each row that is the draft of softmax(q) as often as can be, [n].

    p: the mix's logits as they are to be sampled from, [n, vocab]. q: the drafter's over the temperature,
    [n, up to vocab]. Both in float32. seeds, positions: [n] integers.
    """
    drafts = draw_drafts(q, seeds, positions)
    places = drafts.unsqueeze(1)
    # Not log_softmax: as fast on a CPU, and off by 1e-5 for 152,000 ids in float32, where logsumexp is by 1e-6.
    ratio = p.gather(1, places).squeeze(1) - p.logsumexp(1) - q.gather(1, places).squeeze(1) + q.logsumexp(1)
    accepted = uniforms(seeds, positions, ACCEPT) < ratio.double().exp()
    if not accepted.all():
        rest = (~accepted).nonzero().squeeze(1)
        drafts[rest] = draw_residual(p[rest], q[rest], seeds[rest.numpy()], positions[rest.numpy()])
    return drafts


def draw_residual(p: torch.Tensor, q: torch.Tensor, seeds: np.ndarray, positions: np.ndarray) -> torch.Tensor:
    """A sample of what softmax(p) has more than softmax(q), [n]; shapes as in `draw_coupled`."""
    more = p.softmax(1)
    more[:, : q.shape[1]] -= q.softmax(1)
    more.clamp_(min=0)
    # Nothing is left only where both agree to the last bit and the sums' rounding refused the draft.
    empty = more.amax(1) == 0
    more.log_()
    more[empty] = p[empty]
    return draw(more, row_seeds(seeds, positions, RESIDUAL))
