"""One gather for all models of a mix whose heads are cut into slices, one on each rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from vllm.distributed import tensor_model_parallel_all_gather
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding

from vllm_rast.engine.heads import head_of, multiplies_wide, processors_of


class OneGather:
    """Under tensor parallelism every rank holds a slice of each head. The sum is linear, so slices are combined first
    and gathered once, instead of once for each model.

    Slices must mean the same ids in every model: a small model's head is cut again as the base's is (Qwen2.5's 151,936
    rows over 4 ranks against 152,064).
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        base = head_of(models[0])
        assert base is not None
        self.width = base.num_embeddings_per_partition
        self.start = base.tp_rank * self.width
        (processor,) = processors_of(models[0])
        self.vocab = processor.org_vocab_size
        self.gather_slices = processor._gather_logits
        for model in models:
            head = head_of(model)
            if head is not None and head.num_embeddings_per_partition != self.width:
                model.lm_head = self.cut(head)
            (processor,) = processors_of(model)
            processor._gather_logits = keep_slice
            processor.org_vocab_size = self.width

    @staticmethod
    def fits(models: Sequence[nn.Module]) -> bool:
        """Whether several ranks share the heads, and each model's can be told apart, read and, if needed, cut again."""
        heads = [head for head in map(head_of, models) if head is not None]
        if len(heads) < len(models) or any(head.tp_size == 1 for head in heads):
            return False
        if any(len(processors_of(model)) != 1 for model in models):
            return False
        width = heads[0].num_embeddings_per_partition
        for model, head in zip(models, heads, strict=True):
            cut_alike = head.num_embeddings_per_partition == width
            if not cut_alike and (getattr(model, "lm_head", None) is not head or getattr(head, "has_bias", False)):
                return False
        return True

    def cut(self, head: VocabParallelEmbedding) -> nn.Module:
        """A head with this rank's slice of the base's ids; rows that the small model lacks are 0 and never read."""
        whole = tensor_model_parallel_all_gather(head.weight.data, dim=0)[: head.org_vocab_size]
        rows = whole[self.start : self.start + self.width]
        return SlicedHead(F.pad(rows, (0, 0, 0, self.width - len(rows))), head.tp_size)

    def known(self, ids: int) -> int:
        """How many of the columns of this rank's slice belong to the first `ids` ids."""
        return max(0, min(self.width, ids - self.start))

    def __call__(self, logits: torch.Tensor) -> torch.Tensor | None:
        """[num_rows, slice] on each rank to [num_rows, vocab]; None on ranks that do not sample."""
        whole = self.gather_slices(logits)
        return None if whole is None else whole[:, : self.vocab]


def keep_slice(logits: torch.Tensor) -> torch.Tensor:
    """In place of LogitsProcessor._gather_logits."""
    return logits


class SlicedHead(nn.Module):
    """As much of a head as a LogitsProcessor asks for, with another slice of its rows."""

    def __init__(self, rows: torch.Tensor, tp_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(rows.contiguous(), requires_grad=False)
        self.bias = None
        self.tp_size = tp_size
        self.quant_method = UnquantizedEmbeddingMethod()
        if not multiplies_wide(self.weight):
            self.quant_method.process_weights_after_loading(self)
