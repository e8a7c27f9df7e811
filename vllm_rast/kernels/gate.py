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
    """Put the base's logits in place of the mixed ones where a row's gate is closed; returns which are, [n] booleans.

    mixed: [n, vocab] in float32, changed in place. base: [n, vocab]. gates: [n, 3]. A closed row is an exact copy of
    the base's.
    """
    pieces = zip(*(some.split(rows_at_once(mixed)) for some in (mixed, base, gates)), strict=True)
    found = [gate_piece(*piece) for piece in pieces]
    return torch.cat(found) if found else gates.new_empty(0, dtype=torch.bool)


def gate_piece(mixed: torch.Tensor, base: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    base, (least_js, least_kl, top) = base.float(), gates.unbind(dim=1)
    if (top > 0).any():
        mixed.copy_(within_top(mixed, base, top))
    closed = torch.zeros_like(top, dtype=torch.bool)
    asked = [(least, measure) for least, measure in ((least_js, js), (least_kl, kl)) if (least > 0).any()]
    if asked:
        p, q = Distribution.of(mixed), Distribution.of(base)
        for least, measure in asked:
            closed |= (least > 0) & ~(measure(p, q) >= least)  # a nan is not enough
        mixed.copy_(torch.where(closed[:, None], base, mixed))
    return closed


def kl_of_rows(mixed: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """KL(mix || base) in nats, [n]. mixed, base: [n, vocab]."""
    pieces = zip(*(some.split(rows_at_once(mixed)) for some in (mixed, base)), strict=True)
    return torch.cat([kl(Distribution.of(one), Distribution.of(other)) for one, other in pieces])


def rows_at_once(mixed: torch.Tensor) -> int:
    """How many rows are looked at together."""
    size = PIECE_BYTES.get(mixed.device.type, OTHER_PIECE_BYTES)
    return max(1, size // (4 * max(1, mixed.shape[1])))


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
