"""What is mixed: the base, and pairs of a positive and a negative model, each with its alpha."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm_rast.errors import UserError, shown
from vllm_rast.mix.alpha import check_alpha, default_alpha
from vllm_rast.mix.gate import Gate, read_gate
from vllm_rast.mix.model_names import PLUS, ModelSource, foundation_name, parse_model
from vllm_rast.mix.speculation import DRAFTER, check_speculate, drafter_column, most_drafts

# How models that differ by adapters alone are run: as one forward, as several, or as one if it can be done.
AUTO, ONE, TWO = PAIR_FORWARDS = ("auto", "one", "two")


@dataclass(frozen=True)
class ModelPair:
    """alpha * (positive - negative), one summand of the mix. Either side may be left out.

    positive, negative: a folder, a hub id, `OWNER/NAME@REVISION`, or a shipped model (`tiny:positive`). Each may be a
        PEFT adapter, or `MODEL+ADAPTER` if it is to stand on another model than its configuration names. A positive
        that is an adapter has what it stands on as its negative, unless one is named.
    alpha: the engine's default for this pair; a request may choose another.
    Raises UserError if both sides are missing, a folder does not exist, or alpha is not a finite number.
    """

    positive: str | None = None
    negative: str | None = None
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.positive is None and self.negative is None:
            raise UserError("pairs: a pair needs a positive or a negative model; give at least one side")
        for side in ("positive", "negative"):
            if getattr(self, side) is not None:
                parse_model(getattr(self, side), side)
        if self.positive is not None and self.negative is None:
            object.__setattr__(self, "negative", foundation_name(self.positive, "positive"))
        object.__setattr__(self, "alpha", check_alpha(self.alpha, "alpha"))

    def weights(self, alpha: float) -> tuple[float, float]:
        """What the positive's and the negative's logits are multiplied by."""
        return alpha, -alpha

    def formula(self, alpha: str) -> str:
        """The summand with its alpha as text, in the models' own names."""
        sides = [self.positive or "", f"- {self.negative}" if self.negative else ""]
        return f"{alpha} * ({' '.join(side for side in sides if side)})"

    @classmethod
    def parse(cls, text: str) -> ModelPair:
        """Read `POSITIVE,NEGATIVE[,ALPHA]`, the command line's form; an empty side is left out."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) not in (2, 3):
            raise UserError(f"--pair: expected POSITIVE,NEGATIVE[,ALPHA], got {text!r}")
        try:
            alpha = float(parts[2]) if len(parts) == 3 else 1.0
        except ValueError:
            raise UserError(f"--pair: alpha {parts[2]!r} is not a number") from None
        return cls(parts[0] or None, parts[1] or None, alpha)


PAIR_FIELDS = ModelPair.__dataclass_fields__


@dataclass(frozen=True)
class RastConfig:
    """The whole mix: base + sum of alpha * (positive - negative) over the pairs.

    base: the large model, named as in ModelPair.
    pairs: any number of pairs; none decodes the base alone.
    load_format: how vLLM reads the weights of every model (vLLM's own `load_format`).
    check_tokenizers: refuse small models whose vocabulary differs from the base's. Turn it off only for
        models that ship no tokenizer and are known to share the base's token ids.
    trace: measure KL(mix || base) of every row that is sampled from, for the server's metrics.
    speculate: how many tokens the drafter proposes before all models verify them in one pass; 0: none, "auto": as many
        as pay in each step (see `vllm_rast.mix.draft_schedule`).
    drafter: which small model drafts, as a request names a single model ("positive", "positive:2").
    ceiling: a model that takes no part in any mix; requests may decode with it alone, and token traces compare with it.
    pair_forward: run models that differ by adapters alone (a positive that is an adapter on the negative) as "one"
        forward that reads their weights once, as "two", or, "auto", as one if it can be done and pays.
    token_traces: keep the numbers of given answers' tokens for requests that ask (`RastLLM.trace_answers`).
    gate: on which tokens the pairs act for requests that say nothing about alpha; a Gate or a dictionary of it.
    Raises UserError if check_tokenizers, trace or token_traces is neither true nor false, speculate no such number, the
        drafter none of the small models, or the ceiling the base.
    """

    base: str
    pairs: tuple[ModelPair, ...] = ()
    load_format: str = "auto"
    check_tokenizers: bool = True
    trace: bool = False
    speculate: int | str = 0
    drafter: str = DRAFTER
    ceiling: str | None = None
    token_traces: bool = False
    pair_forward: str = AUTO
    gate: Gate | None = None
    # The models, each once: sources[0] is the base. columns: for each pair the places of its models among them.
    sources: tuple[ModelSource, ...] = field(init=False, repr=False, compare=False)
    columns: tuple[tuple[int | None, int | None], ...] = field(init=False, repr=False, compare=False)
    ceiling_column: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for option in ("check_tokenizers", "trace", "token_traces"):
            if not isinstance(getattr(self, option), bool):
                raise UserError(f"{option}: expected true or false, got {getattr(self, option)!r}")
        if self.pair_forward not in PAIR_FORWARDS:
            raise UserError(f"pair_forward: choose one of {', '.join(PAIR_FORWARDS)}, got {shown(self.pair_forward)}")
        pairs = tuple(p if isinstance(p, ModelPair) else pair_from(p) for p in self.pairs)
        object.__setattr__(self, "pairs", pairs)
        if self.gate is not None:
            object.__setattr__(self, "gate", read_gate(self.gate, "gate"))
        sources = [parse_model(self.base, "model")]

        def place(name: str | None, option: str) -> int | None:
            if name is None:
                return None
            source = parse_model(name, option)
            if source not in sources:
                sources.append(source)
            return sources.index(source)

        columns = tuple((place(pair.positive, "positive"), place(pair.negative, "negative")) for pair in pairs)
        ceiling = place(self.ceiling, "ceiling")
        if ceiling == 0:
            raise UserError(f"ceiling: {self.ceiling} is the base itself; name the tuned model of the base's size")
        object.__setattr__(self, "ceiling_column", ceiling)
        object.__setattr__(self, "sources", tuple(sources))
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "speculate", check_speculate(self.speculate))
        if self.speculate:
            drafter_column(self)

    @classmethod
    def build(
        cls,
        base: str,
        positive: str | None = None,
        negative: str | None = None,
        alpha: float | Sequence[float] | dict[str, Any] | None = None,
        pairs: Sequence[ModelPair] = (),
        **options: Any,
    ) -> RastConfig:
        """Join the short form (positive, negative) and the long one (pairs) into one list of pairs.

        alpha: one number for every pair, or one for each, also as {"alpha": A, "gate": {...}}; None keeps the pairs'
        own.
        """
        common, gate = default_alpha(alpha)
        if gate is not None:
            options["gate"] = gate
        every = list(pairs)
        if positive is not None or negative is not None:
            every.insert(0, ModelPair(positive, negative))
        if common is not None:
            listed = isinstance(common, Sequence) and not isinstance(common, str)
            values = list(common) if listed else [common] * len(every)
            if len(values) != len(every):
                raise UserError(
                    f"alpha: {len(values)} values for {len(every)} pairs; give one number, or one for each pair"
                )
            every = [dataclasses.replace(pair, alpha=value) for pair, value in zip(every, values, strict=True)]
        return cls(base, tuple(every), **options)

    @property
    def alphas(self) -> tuple[float, ...]:
        """The engine's default alpha of each pair, [num_pairs]."""
        return tuple(pair.alpha for pair in self.pairs)

    @property
    def most_drafts(self) -> int:
        """The most tokens that are drafted in a step; 0: none ever."""
        return most_drafts(self.speculate)

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary, as it travels in vLLM's `additional_config={"rast": ...}`.

        Without the base, which vLLM is told itself; but it knows of no adapter that is merged into it.
        """
        adapter = self.sources[0].adapter
        return {
            "base_adapter": adapter.name if adapter else None,
            "pairs": [dataclasses.asdict(pair) for pair in self.pairs],
            "load_format": self.load_format,
            "check_tokenizers": self.check_tokenizers,
            "trace": self.trace,
            "speculate": self.speculate,
            "drafter": self.drafter,
            "ceiling": self.ceiling,
            "token_traces": self.token_traces,
            "pair_forward": self.pair_forward,
            "gate": None if self.gate is None else self.gate.to_dict(),
        }

    @classmethod
    def from_dict(cls, base: str, values: Any) -> RastConfig:
        """Read what `to_dict` wrote, or what a user typed as `--additional-config '{"rast": {...}}'`.

        Accepts the short form {"positive", "negative", "alpha"} too. Raises UserError for unknown keys.
        """
        if not isinstance(values, dict):
            raise UserError(f'additional_config["rast"]: expected a dictionary, got {values!r}')
        known = {"positive", "negative", "alpha", "base_adapter"} | {
            field.name for field in dataclasses.fields(cls) if field.init
        }
        known -= {"base"}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UserError(f'additional_config["rast"]: unknown key {unknown[0]!r}; known: {", ".join(sorted(known))}')
        options = dict(values)
        if adapter := options.pop("base_adapter", None):
            base = f"{base}{PLUS}{adapter}"
        pairs = options.pop("pairs", ())
        if not isinstance(pairs, (list, tuple)):
            raise UserError(f'additional_config["rast"]["pairs"]: expected a list, got {pairs!r}')
        return cls.build(base, pairs=[pair_from(pair) for pair in pairs], **options)


def pair_from(values: Any) -> ModelPair:
    """A ModelPair from one, or from a dictionary of its fields."""
    if isinstance(values, ModelPair):
        return values
    if not isinstance(values, dict) or not values.keys() <= PAIR_FIELDS.keys():
        raise UserError(f"pairs: expected {', '.join(PAIR_FIELDS)}, got {values!r}")
    return ModelPair(**values)


def model_names(models: RastConfig) -> list[str]:
    """Every model of a mix, the base first."""
    sides = [side for pair in models.pairs for side in (pair.positive, pair.negative) if side]
    return [models.base, *sides, *([models.ceiling] if models.ceiling else [])]


def said_of(pair: Any) -> dict[str, Any]:
    """A pair's fields; none if it is neither a ModelPair nor a dictionary."""
    if isinstance(pair, ModelPair):
        return {name: getattr(pair, name) for name in PAIR_FIELDS}
    return pair if isinstance(pair, dict) else {}


def names_said(values: Any) -> list[str]:
    """The model names in a dictionary that `RastConfig.from_dict` will read, as far as it is one."""
    if not isinstance(values, dict):
        return []
    pairs = values.get("pairs")
    pairs = [said_of(pair) for pair in pairs] if isinstance(pairs, (list, tuple)) else []
    said = [one.get(side) for one in (values, *pairs) for side in ("positive", "negative", "ceiling")]
    return [name for name in said if isinstance(name, str)]
