"""A linear layer with bfloat16 weights and float32 sums: the heads on a CPU, and layers for which vLLM has no better.

torch multiplies bfloat16 matrices on processors without bfloat16 instructions several times slower than float32 ones,
and can only give their product rounded to bfloat16; a float32 copy of the weights would cost twice their memory.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from vllm_rast.kernels.select import native, operation

CHUNK = 4096  # weight rows that are widened at a time if torch does the work: 16 MB at a width of 1024


def wide_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, rounds: bool = False
) -> torch.Tensor:
    """x @ weight.T + bias, summed in float32; the result is float32, or rounded once to bfloat16 if `rounds`.

    x: [..., depth] in bfloat16. weight: [width, depth] in bfloat16. bias: [width] in float32.

    On a CPU a row's result does not depend on the rows beside it. No gradients. Raises RuntimeError or ValueError if
    shapes or dtypes do not fit.
    """
    rows = x.reshape(-1, x.shape[-1])
    if x.device.type == "cpu" and native("cpu"):
        out = torch.ops.vllm_rast.wide_linear(rows, weight, bias, rounds)
    else:
        out = multiply_with_torch(rows, weight, bias, rounds)
    return out.reshape(*x.shape[:-1], weight.shape[0])


def multiply_with_torch(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, rounds: bool) -> torch.Tensor:
    """The same in plain torch: what the kernel is tested against, and what runs if there is none."""
    if x.dtype != torch.bfloat16 or weight.dtype != torch.bfloat16:
        raise ValueError(f"wide_linear: x and weight must be bfloat16, got {x.dtype} and {weight.dtype}")
    wide = x.float()
    out = torch.empty(x.shape[0], weight.shape[0], device=x.device)
    for first in range(0, weight.shape[0], CHUNK):
        out[:, first : first + CHUNK] = F.linear(wide, weight[first : first + CHUNK].float())
    if bias is not None:
        out += bias
    return out.to(torch.bfloat16) if rounds else out


operation.impl("wide_linear", multiply_with_torch, "CompositeExplicitAutograd")


@torch.library.register_fake("vllm_rast::wide_linear", lib=operation)
def _fake(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, rounds: bool) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], dtype=torch.bfloat16 if rounds else torch.float32)
