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
    logits: Sequence[torch.Tensor], weights: torch.Tensor, tokens: torch.Tensor, config: RastConfig
) -> torch.Tensor:
    """The numbers of every row, [num_rows, len(trace_columns(config))] in float32.

    logits: each model's, [num_rows, vocab_m], cut to the ids that it has. weights: [num_rows, num_models] in float32,
    of the mix. tokens: the id that followed each row, [num_rows].
    """
    return torch.stack(list(named_numbers(logits, weights, tokens, config).values()), dim=1)


def named_numbers(
    logits: Sequence[torch.Tensor], weights: torch.Tensor, tokens: torch.Tensor, config: RastConfig
) -> dict[str, torch.Tensor]:
    """The columns of `trace_tokens` by name, each [num_rows]."""
    logits = [some.float() for some in logits]
    labels = model_labels(config)
    every = dict(zip(labels, logits, strict=True)) | {"mix": combine_logits(logits, weights)}
    # Not log_softmax: its plain sum over 151,936 ids is off by 4e-5 on a CPU, this one's by 3e-6.
    found = {label: Distribution(some - some.logsumexp(dim=1, keepdim=True)) for label, some in every.items()}
    numbers = {}
    for label, some in found.items():
        for name, values in zip(PER_MODEL, numbers_of_model(some, tokens), strict=True):
            numbers[f"{label}_{name}"] = values
    numbers["kl_mix_base"] = kl(found["mix"], found["base"])
    numbers["js_mix_base"] = js(found["mix"], found["base"])
    if "ceiling" in found:
        numbers["js_ceiling_base"] = js(found["ceiling"], found["base"])
    pairs = whole_pairs(config)
    for number, (positive, negative) in pairs.items():
        numbers[f"kl_positive_negative{suffix(number)}"] = kl(found[labels[positive]], found[labels[negative]])
    return numbers | numbers_of_deltas(every, {n: (labels[p], labels[m]) for n, (p, m) in pairs.items()}, tokens)


class Distribution:
    """log: log-probabilities, [num_rows, vocab]. p: probabilities."""

    def __init__(self, log: torch.Tensor) -> None:
        self.log, self.p = log, log.exp()

    def padded(self, width: int) -> Distribution:
        """With more columns: ids that a model does not have are impossible."""
        missing = width - self.log.shape[1]
        return self if missing <= 0 else Distribution(torch.nn.functional.pad(self.log, (0, missing), value=-math.inf))

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The expectation of values [num_rows, vocab], [num_rows]; what is impossible does not count, even if inf."""
        return torch.where(self.p == 0, 0, self.p * values).sum(dim=1)


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


def kl(p: Distribution, q: Distribution) -> torch.Tensor:
    """KL(p || q) in nats, [num_rows]; inf where p gives something to an id that q rules out."""
    p, q = equally_wide(p, q)
    return p.mean(p.log - q.log).clamp(min=0)  # below 0 by rounding alone


def js(p: Distribution, q: Distribution) -> torch.Tensor:
    """The Jensen-Shannon divergence in nats, [num_rows]."""
    p, q = equally_wide(p, q)
    middle = (p.p + q.p).log() - math.log(2)  # in this order: half of the least probability would be 0
    return ((p.mean(p.log - middle) + q.mean(q.log - middle)) / 2).clamp(min=0)


def equally_wide(p: Distribution, q: Distribution) -> tuple[Distribution, Distribution]:
    """Both with the columns of the wider one."""
    width = max(p.log.shape[1], q.log.shape[1])
    return p.padded(width), q.padded(width)


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
