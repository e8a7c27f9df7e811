"""A token trace: about twenty numbers for each token of a given answer, from every model's whole logits.

The rules stand here once, in plain torch and float32; the engine calls them for blocks of rows. For every model, and
for the mix:

    NAME_logprob    log-probability of the answer's token, in nats; NAME is base, positive, negative, positive_2,
                    ceiling, ... or mix
    NAME_rank       1 + how many ids are likelier than it
    NAME_entropy    of the whole distribution, in nats
    NAME_argmax     the likeliest id (float32 keeps whole numbers up to 2^24)

and for distributions and differences:

    kl_mix_base, js_mix_base, js_ceiling_base       in nats; a Jensen-Shannon divergence is at most log 2
    tv_mix_base                                     total variation, from 0 to 1
    implausible                                     the share of it outside the base's 20 likeliest ids
    kl_positive_negative[_2]                        of each pair that has both sides
    delta[_2]                                       positive - negative, in logits, of the answer's token
    delta_size[_2]                                  Euclidean norm of positive - negative over all ids
    delta_cosine_ceiling[_2], ..._centred           cosine of positive - negative with ceiling - base
    delta_cosine_1_2, ..._centred                   of two pairs' differences

Differences are of raw logits, as in the paper (RAST, arXiv 2506.15710). A softmax does not see a constant that is
added to all logits, a cosine of raw logits does: `centred` ones are taken after each difference's mean is off. They
are over the ids that all four models have. Everything is at temperature 1 and before top-p.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from vllm_rast.kernels.combine import combine_logits
from vllm_rast.kernels.distribution import Distribution, js, kl, moved_mass
from vllm_rast.kernels.gate import apply_gates

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

PER_MODEL = ("logprob", "rank", "entropy", "argmax")


def model_labels(config: RastConfig) -> list[str]:
    """What the columns call each model, [num_models]; a model that stands in several places has its first name."""
    labels = {0: "base"}
    if config.ceiling_column is not None:
        labels[config.ceiling_column] = "ceiling"
    for number, columns in enumerate(config.columns, start=1):
        for side, column in zip(("positive", "negative"), columns, strict=True):
            if column is not None:
                labels.setdefault(column, side + suffix(number))
    return [labels[column] for column in range(len(config.sources))]


def suffix(number: int) -> str:
    """What follows a column's name for the pair of that number, 1 the first."""
    return "" if number == 1 else f"_{number}"


def whole_pairs(config: RastConfig) -> dict[int, tuple[int, int]]:
    """The pairs with both sides, by their number: places of the positive and the negative among `config.sources`."""
    return {
        number: (positive, negative)
        for number, (positive, negative) in enumerate(config.columns, start=1)
        if positive is not None and negative is not None
    }


def trace_columns(config: RastConfig) -> list[str]:
    """The names of a trace's columns, in their order."""
    one = [torch.zeros(1, 1)] * len(config.sources)
    return list(named_numbers(one, torch.zeros(1, len(one)), torch.zeros(1, dtype=torch.int64), config))


def trace_tokens(
    logits: Sequence[torch.Tensor],
    weights: torch.Tensor,
    tokens: torch.Tensor,
    config: RastConfig,
    gates: torch.Tensor | None = None,
) -> torch.Tensor:
    """The numbers of every row, [num_rows, len(trace_columns(config))] in float32.

    logits: each model's, [num_rows, vocab_m], cut to the ids that it has. weights: [num_rows, num_models] in float32,
    of the mix. tokens: the id that followed each row, [num_rows]. gates: of the mix, see `apply_gates`.
    """
    return torch.stack(list(named_numbers(logits, weights, tokens, config, gates).values()), dim=1)


def likeliest_columns(config: RastConfig, number: int) -> list[str]:
    """The columns of `likeliest_tokens`: NAME_logprob, and NAME_top1, NAME_top1_logprob, ... for the likeliest ids."""
    tops = [end for place in range(1, number + 1) for end in (f"_top{place}", f"_top{place}_logprob")]
    return [label + end for label in [*model_labels(config), "mix"] for end in ("_logprob", *tops)]


def likeliest_tokens(
    logits: Sequence[torch.Tensor],
    weights: torch.Tensor,
    tokens: torch.Tensor,
    config: RastConfig,
    number: int,
    gates: torch.Tensor | None = None,
) -> torch.Tensor:
    """Each model's and the mix's log-probability of every row's token, and its `number` likeliest ids with theirs,
    [num_rows, len(likeliest_columns(config, number))] in float32; arguments as of `trace_tokens`.

    A model that has fewer ids than `number` gives the id -1 for those that are missing.
    """
    mixed = mixed_logits(logits, weights, gates)
    columns = []
    for some in [*logits, mixed]:
        log = Distribution.of(some.float()).log
        columns.append(of_tokens(log, tokens, missing=-math.inf))
        values, ids = log.topk(min(number, log.shape[1]), dim=1)
        columns += [one for pair in zip(ids.float().unbind(1), values.unbind(1), strict=True) for one in pair]
        columns += [
            torch.full_like(columns[0], one) for _ in range(number - values.shape[1]) for one in (-1, -math.inf)
        ]
    return torch.stack(columns, dim=1)


def mixed_logits(logits: Sequence[torch.Tensor], weights: torch.Tensor, gates: torch.Tensor | None) -> torch.Tensor:
    """What is decoded from, [num_rows, vocab_base] in float32."""
    mixed = combine_logits(logits, weights)
    if gates is not None:
        apply_gates(mixed, logits[0], gates)
    return mixed


def named_numbers(
    logits: Sequence[torch.Tensor],
    weights: torch.Tensor,
    tokens: torch.Tensor,
    config: RastConfig,
    gates: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """The columns of `trace_tokens` by name, each [num_rows]."""
    logits = [some.float() for some in logits]
    labels = model_labels(config)
    every = dict(zip(labels, logits, strict=True)) | {"mix": mixed_logits(logits, weights, gates)}
    found = {label: Distribution.of(some) for label, some in every.items()}
    numbers = {}
    for label, some in found.items():
        for name, values in zip(PER_MODEL, numbers_of_model(some, tokens), strict=True):
            numbers[f"{label}_{name}"] = values
    numbers["kl_mix_base"] = kl(found["mix"], found["base"])
    numbers["js_mix_base"] = js(found["mix"], found["base"])
    numbers["tv_mix_base"], numbers["implausible"] = moved_mass(found["mix"], found["base"])
    if "ceiling" in found:
        numbers["js_ceiling_base"] = js(found["ceiling"], found["base"])
    pairs = whole_pairs(config)
    for number, (positive, negative) in pairs.items():
        numbers[f"kl_positive_negative{suffix(number)}"] = kl(found[labels[positive]], found[labels[negative]])
    return numbers | numbers_of_deltas(every, {n: (labels[p], labels[m]) for n, (p, m) in pairs.items()}, tokens)


def numbers_of_model(one: Distribution, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """PER_MODEL of each row; an id beyond the vocabulary has no probability."""
    own = of_tokens(one.log, tokens, missing=-math.inf)
    rank = 1 + (one.log > own[:, None]).sum(dim=1)
    return own, rank.float(), -one.mean(one.log), one.log.argmax(dim=1).float()


def of_tokens(values: torch.Tensor, tokens: torch.Tensor, missing: float) -> torch.Tensor:
    """values[n, tokens[n]], [num_rows]; `missing` for ids beyond the last column."""
    width = values.shape[1]
    own = values.gather(1, tokens.clamp(max=width - 1)[:, None])[:, 0]
    return torch.where(tokens < width, own, missing)


def numbers_of_deltas(
    logits: Mapping[str, torch.Tensor], pairs: Mapping[int, tuple[str, str]], tokens: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Size, token's part and cosines of every pair's difference; pairs: number to the labels of its models."""
    named = {number: difference(logits[p], logits[m]) for number, (p, m) in pairs.items()}
    numbers = {}
    for number, delta in named.items():
        numbers[f"delta{suffix(number)}"] = of_tokens(delta, tokens, missing=math.nan)
        numbers[f"delta_size{suffix(number)}"] = delta.norm(dim=1)
    if "ceiling" in logits:
        ceiling = difference(logits["ceiling"], logits["base"])
        for number, delta in named.items():
            numbers |= cosines(f"delta_cosine_ceiling{suffix(number)}", delta, ceiling)
    for (i, one), (k, other) in combinations(named.items(), 2):
        numbers |= cosines(f"delta_cosine_{i}_{k}", one, other)
    return numbers


def difference(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """first - second over the ids that both have."""
    width = min(first.shape[1], second.shape[1])
    return first[:, :width] - second[:, :width]


def cosines(name: str, first: torch.Tensor, second: torch.Tensor) -> dict[str, torch.Tensor]:
    """The cosine of two differences over the ids that both have, raw and after each one's mean is off, [num_rows]."""
    width = min(first.shape[1], second.shape[1])
    first, second = first[:, :width], second[:, :width]
    centred = [some - some.mean(dim=1, keepdim=True) for some in (first, second)]
    return {
        name: torch.cosine_similarity(first, second, dim=1),
        f"{name}_centred": torch.cosine_similarity(*centred, dim=1),
    }
