"""The model that vLLM sees: base and small models in lockstep, one row of hidden states for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig, get_layers_from_vllm_config
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.tokenizers import cached_tokenizer_from_config

from vllm_rast.engine.decode_traces import DecodeTraces
from vllm_rast.engine.divergence import TraceSums
from vllm_rast.engine.gather import OneGather
from vllm_rast.engine.heads import use_float32_head, use_wide_linears
from vllm_rast.engine.members import member_prefix
from vllm_rast.engine.shared_model import SharedModel, columns_with, loaded_once, running_together
from vllm_rast.engine.token_gates import GatedRows
from vllm_rast.engine.token_traces import TokenTraces
from vllm_rast.kernels.combine import combine_logits
from vllm_rast.kernels.gate import kl_of_rows
from vllm_rast.mix.alpha import weight_row
from vllm_rast.mix.config import RastConfig
from vllm_rast.mix.gate import CARRIED
from vllm_rast.mix.speculation import drafter_column


class Ensemble(nn.Module):
    """Runs every model on the same tokens and mixes their logits with the weights of each token's request.

    `forward` returns rows [h_base | h_1 | ... | weights | gate]: the runner picks rows in several places (one for each
    request, several under speculative decoding, any of the prompt for prompt_logprobs), and a row that carries its
    own weights is right in all of them. `token_weights`, [max_num_tokens, num_models] in float32, is filled by the
    runner before each step; its address never changes, so CUDA graphs may hold it. So is `token_gates`,
    [max_num_tokens, 3], in steps with a gated request; in others nobody reads it.
    """

    def __init__(
        self,
        vllm_config: VllmConfig,
        prefix: str = "",
        *,
        members: Sequence[nn.Module],
        vocab_sizes: Sequence[int],
        widths: Sequence[int],
        config: RastConfig,
    ) -> None:
        super().__init__()
        self.vocab_sizes = list(vocab_sizes)
        self.widths = list(widths)
        # Which models the requests of this step use; the V1 runner says so on a CPU (members.skips_idle_models).
        self.active = (True,) * len(members)
        self.members = nn.ModuleList(members)
        self.rast_config = config
        model_config = vllm_config.model_config
        self.hidden_dtype = model_config.dtype
        # Ids beyond the tokenizer are padding rows of the head; only the plain base keeps them (as in vLLM itself).
        self.num_ids = None if model_config.skip_tokenizer_init else len(cached_tokenizer_from_config(model_config))
        max_tokens = vllm_config.scheduler_config.max_num_batched_tokens
        default = torch.tensor(weight_row(config, None), dtype=torch.float32)
        device = next(members[0].parameters()).device
        self.register_buffer("token_weights", default.repeat(max_tokens, 1).to(device), persistent=False)
        self.register_buffer("token_gates", torch.zeros(max_tokens, len(CARRIED), device=device), persistent=False)
        # The ids that a model has, of one that lacks some of the base's: like all inputs of a graph at a fixed address.
        known = torch.zeros(len(members), max_tokens, dtype=torch.int32, device=device)
        self.register_buffer("known_tokens", known, persistent=False)
        # Pieces of models that vLLM records as CUDA graphs share their memory: what one model gave is overwritten by
        # the next one.
        self.copies_states = device.type == "cuda"
        self.gated = False  # whether a request of this step has a gate; both runners say so
        loaded = loaded_once(members)
        for model in loaded:
            use_float32_head(model)
            use_wide_linears(model)
        self.one_gather = OneGather(loaded) if OneGather.fits(loaded) else None
        self.trace_sums = TraceSums(device) if config.trace else None
        self.draft_column = drafter_column(config) if config.speculate else None
        self.keeps_draft_logits = False  # both runners say so for a step whose samples need them
        self.draft_logits: torch.Tensor | None = None  # the drafter's, of the rows that were mixed last
        self.token_traces = TokenTraces(config) if config.token_traces else None
        self.decode_traces = DecodeTraces(device)
        self.keeps_rows = False  # the V1 runner says so for a step with a request that asks for a trace
        self.rows: torch.Tensor | None = None  # those that were mixed last

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.members[0].embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states of all models and the weights, [num_tokens, sum of hidden sizes + weight columns]."""
        found: dict[int, torch.Tensor] = {}
        for model, columns in running_together(self.members, self.active):
            ids = self.known_ids(input_ids, columns[0])
            if isinstance(model, SharedModel):
                found |= zip(columns, model(ids, positions, self.places(columns)), strict=True)
            else:
                states = model(ids, positions)
                found[columns[0]] = states.clone() if self.copies_states else states
        for column, states in found.items():
            self.widths[column] = states.shape[-1]
        hidden = [
            found[column] if column in found else self.unread(positions.shape[-1], width, self.hidden_dtype)
            for column, width in enumerate(self.widths)
        ]
        # A float32 weight is carried as the same bits in one or two columns of the rows' dtype, never rounded.
        tokens, dtype = hidden[0].shape[0], hidden[0].dtype
        carried = [some[:tokens].view(dtype) for some in (self.token_weights, self.token_gates)]
        return torch.cat([*hidden, *carried], dim=-1)

    def places(self, columns: Sequence[int]) -> list[int]:
        """The places in their SharedModel of models that share one."""
        return [self.members[column].place for column in columns]

    def unread(self, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """Room for what an idle model would have given; its weight is 0, so nobody reads it."""
        return torch.empty(rows, columns, dtype=dtype, device=self.token_weights.device)

    def known_ids(self, input_ids: torch.Tensor | None, column: int) -> torch.Tensor | None:
        """Ids that a model has an embedding for, [num_tokens].

        A plain-base request may send or sample one of the base's padding ids. The models it does not use run on it
        too (their keys and values fill the shared blocks), and must not read past their embeddings. The ids' address
        never changes, as that of vLLM's own: CUDA graphs of pieces of a model hold it.
        """
        if input_ids is None or self.vocab_sizes[column] >= self.vocab_sizes[0]:
            return input_ids
        known = self.known_tokens[column, : len(input_ids)]
        return torch.clamp(input_ids, max=self.vocab_sizes[column] - 1, out=known)

    def compute_logits(self, rows: torch.Tensor) -> torch.Tensor | None:
        """The mixed logits, [num_rows, vocab_base] in float32; None on ranks that do not sample.

        The difference is taken between float32 logits: bfloat16 logits near 20 are 0.125 apart.
        """
        self.draft_logits = None
        self.rows = rows if self.keeps_rows else None
        hidden, weights, gates = self.split(rows)
        heads = self.heads(hidden)
        logits = [some for some in heads if some is not None]
        if len(logits) < len(heads):
            return None
        gated = None if gates is None else GatedRows.of(logits[0], gates)
        if self.trace_sums is not None:
            mixed = self.trace_sums.combine(logits, weights, self.one_gather, gated)
        else:
            mixed = combine_logits(logits, weights, out=logits[0] if logits[0].dtype == torch.float32 else None)
        if self.one_gather is None:
            return mixed if gated is None else self.close_gates(mixed, gated, weights)
        whole, gated = self.gather(mixed, gated)
        return whole if whole is None or gated is None else self.close_gates(whole, gated, weights)

    def close_gates(self, mixed: torch.Tensor, gated: GatedRows, weights: torch.Tensor) -> torch.Tensor:
        """The whole mixed logits, with the base's where a gate is closed."""
        closed = gated.close(mixed)
        if self.trace_sums is not None:
            kl = kl_of_rows(mixed[gated.rows], gated.base).masked_fill(closed, -1)
            self.trace_sums.add(kl, weights[gated.rows])
        return mixed

    def gather(self, mixed: torch.Tensor, gated: GatedRows | None) -> tuple[torch.Tensor | None, GatedRows | None]:
        """Every rank's slices of the mixed logits, and in the same gather the base's of gated rows and the drafter's,
        if those are kept."""
        assert self.one_gather is not None
        base = None if gated is None else gated.base
        parts = [some for some in (mixed, base, self.draft_logits) if some is not None]
        whole = self.one_gather(torch.cat(parts) if len(parts) > 1 else mixed)
        if whole is None:
            return None, None
        mixed, *others = whole.split([len(some) for some in parts])
        if gated is not None:
            gated = gated._replace(base=others.pop(0))
        if self.draft_logits is not None:
            (self.draft_logits,) = others
        return mixed, gated

    def split(self, rows: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor | None]:
        """Each model's hidden states, the weights, [num_rows, num_models] in float32, and the gates, [num_rows, 3];
        None if no request of the step has one."""
        *hidden, carried = rows.split([*self.widths, rows.shape[-1] - sum(self.widths)], dim=-1)
        numbers = carried.contiguous().view(torch.float32)
        weights, gates = numbers.split([len(self.members), len(CARRIED)], dim=-1)
        return hidden, weights.contiguous(), gates if self.gated else None

    def every_logits(self, rows: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor | None] | None:
        """Each model's whole logits, [num_rows, the ids it has], the weights and the gates (see `split`); None on ranks
        that do not sample."""
        hidden, weights, gates = self.split(rows)
        every = [
            member.compute_logits(states.contiguous()) for member, states in zip(self.members, hidden, strict=True)
        ]
        if self.one_gather is not None:
            every = [self.one_gather(some) for some in every]
        logits = [some for some in every if some is not None]
        if len(logits) < len(every):
            return None
        return [logits[0], *(some[:, : self.ids(column)] for column, some in enumerate(logits[1:], 1))], weights, gates

    def ids(self, column: int) -> int:
        """How many ids count of a small model: those of the tokenizer, as far as it has them."""
        return self.vocab_sizes[column] if self.num_ids is None else min(self.num_ids, self.vocab_sizes[column])

    def heads(self, hidden: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """Every model's logits, [num_rows, its vocabulary], or this rank's slice of them if slices are combined.

        A small model's end at the tokenizer's last id: none beyond it can be sampled if small models take part.
        """
        whole: dict[int, torch.Tensor | None] = {}
        for model, columns in running_together(self.members, self.active):
            if isinstance(model, SharedModel):
                whole |= zip(columns, model.compute_logits([hidden[column] for column in columns]), strict=True)
            else:
                whole[columns[0]] = model.compute_logits(hidden[columns[0]].contiguous())
        if self.keeps_draft_logits and self.draft_column in whole:
            self.draft_logits = whole[self.draft_column]
        return [self.known_logits(column, whole, len(hidden[0])) for column in range(len(self.members))]

    def known_logits(self, column: int, whole: dict[int, torch.Tensor | None], rows: int) -> torch.Tensor | None:
        """What counts of one model's logits; room that nobody reads if it is idle."""
        if column in whole:
            logits = whole[column]
        else:
            width = self.vocab_sizes[column] if self.one_gather is None else self.one_gather.width
            logits = self.unread(rows, width, torch.float32)
        if logits is None or column == 0:
            return logits
        ids = self.ids(column)
        return logits[:, : ids if self.one_gather is None else self.one_gather.known(ids)]

    def draft(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The drafter's logits after each token, [num_tokens, ids], without the other models."""
        column = self.draft_column
        assert column is not None
        hidden = self.members[column](self.known_ids(input_ids, column), positions)
        logits = self.members[column].compute_logits(hidden)
        return self.draft_ids(logits if self.one_gather is None else self.one_gather(logits))

    def draft_layers(self, vllm_config: VllmConfig) -> set[str]:
        """The names of the attention layers that run when it drafts: the drafter's, under its prefix, and those of
        models that always run with it, whose keys and values are overwritten like the drafter's own."""
        assert self.draft_column is not None
        columns = columns_with(self.members, self.draft_column)
        prefixes = tuple(f"{member_prefix(column)}." if column else "model." for column in columns)
        layers = get_layers_from_vllm_config(vllm_config, AttentionLayerBase)  # type: ignore[type-abstract]
        return {name for name in layers if name.startswith(prefixes)}

    def take_draft_logits(self) -> torch.Tensor | None:
        """The drafter's logits of the rows that were mixed last, [num_rows, ids]; None if none were kept.

        Rows of prompts, which are mixed after those that are sampled from, need none.
        """
        logits, self.draft_logits, self.keeps_draft_logits = self.draft_logits, None, False
        return None if logits is None else self.draft_ids(logits)

    def take_rows(self) -> torch.Tensor | None:
        """The rows that were mixed last, [num_rows, ...]; None if they were not kept."""
        rows, self.rows = self.rows, None
        return rows

    def draft_ids(self, logits: torch.Tensor) -> torch.Tensor:
        """Only ids that a mix can give."""
        assert self.draft_column is not None
        return logits[:, : min(self.ids(self.draft_column), self.vocab_sizes[0])]

    @staticmethod
    def get_model_state_cls() -> type:
        """What vLLM's V2 runner asks a model for."""
        from vllm_rast.engine.v2_state import RastModelState

        return RastModelState
