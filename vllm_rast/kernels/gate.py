"""Gates on rows of mixed logits, in plain torch: what `vllm_rast.mix.gate.Gate` says, for rows of several requests.

A row's gate is [js, kl, top] in float32, `vllm_rast.mix.gate.CARRIED`; 0 is no condition.
"""

from __future__ import annotations

import torch

from vllm_rast.kernels.distribution import Distribution, js, kl

# Rows are looked at in pieces of so many bytes of float32 logits: on a CPU they stay in its cache.
PIECE_BYTES = {"cpu": 1 << 20}
OTHER_PIECE_BYTES = 32 << 20


def apply_gates(mixed: torch.Tensor, base: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """Put the base's logits in place of the mixed ones where a row's gate is closed; returns KL(result || base), [n].

    mixed: [n, vocab] in float32, changed in place. base: [n, vocab]. gates: [n, 3]. A closed row is an exact copy of
    the base's, and its KL is -1.
    """
    size = PIECE_BYTES.get(mixed.device.type, OTHER_PIECE_BYTES)
    rows = max(1, size // (4 * max(1, mixed.shape[1])))
    found = [gate_piece(*piece) for piece in zip(mixed.split(rows), base.split(rows), gates.split(rows), strict=True)]
    return torch.cat(found) if found else mixed.new_empty(0)


def gate_piece(mixed: torch.Tensor, base: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    base, (least_js, least_kl, top) = base.float(), gates.unbind(dim=1)
    if (top > 0).any():
        mixed.copy_(within_top(mixed, base, top))
    p, q = Distribution.of(mixed), Distribution.of(base)
    moved = kl(p, q)
    closed = (least_kl > 0) & ~(moved >= least_kl)  # a nan is not enough
    if (least_js > 0).any():
        closed |= (least_js > 0) & ~(js(p, q) >= least_js)
    mixed.copy_(torch.where(closed[:, None], base, mixed))
    return moved.masked_fill(closed, -1)


def within_top(mixed: torch.Tensor, base: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """The mix among the ids that `top` names, which keep the sum of the base's probabilities; others keep their own.

    So a constant that is added to all of a model's logits changes nothing here either. top: [n], 0 for all ids.
    """
    counted, least = top >= 1, base.amax(dim=1) + top.log()
    if counted.any():
        places = (top.long().clamp(1, base.shape[1]) - 1)[:, None]
        likeliest = base.topk(int(places[counted].max()) + 1, dim=1).values
        least = torch.where(counted, likeliest.gather(1, places.clamp(max=likeliest.shape[1] - 1))[:, 0], least)
    inside = base >= least[:, None]
    mass = [some.masked_fill(~inside, -torch.inf).logsumexp(dim=1, keepdim=True) for some in (base, mixed)]
    inside &= mass[1] > -torch.inf  # else the small models have none of these ids
    reached = torch.where(inside, mixed + (mass[0] - mass[1]), base)
    return torch.where((top == 0)[:, None], mixed, reached)
