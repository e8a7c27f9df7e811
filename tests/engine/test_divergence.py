"""Traces: the numbers of each row against float64, their sums in an engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from greedy import decode, make_prompts
from kernel_cases import DECIDED, DTYPES, ODD_COLUMNS, assert_same_bits, needs_library, random_case, with_torch

from vllm_rast import RastConfig, UserError
from vllm_rast.engine.divergence import TraceSums, merge_slices
from vllm_rast.engine.worker import TracingMixin
from vllm_rast.kernels import build
from vllm_rast.kernels import select as kernels
from vllm_rast.kernels.combine import TRACE_COLUMNS, combine_logits, trace_with_torch
from vllm_rast.reference import ReferenceLLM

KL = TRACE_COLUMNS.index("kl")
INF, NAN = math.inf, math.nan


def ref_trace(base: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """[num_rows, 5] in float64, each number from its definition."""
    base, mix = base.double(), mix.double()
    p, q = mix.softmax(1), base.softmax(1)
    kl = torch.where(p == 0, 0, p * (p.log() - q.log())).sum(1)
    columns = (base.amax(1), base.logsumexp(1), mix.amax(1), mix.logsumexp(1), kl)
    return torch.stack(columns, dim=1)


def traced(logits: list[torch.Tensor], weights: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """The trace of combine_logits, whose sum is checked by the way."""
    wanted, trace = with_torch(logits, weights), torch.full((len(weights), 5), 7.0)
    assert_same_bits(combine_logits(logits, weights, out=out, trace=trace), wanted)
    return trace


def assert_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got.double(), wanted.double(), rtol=1e-6, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("num_models", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [0, 1, 3, 257])
@pytest.mark.parametrize("columns", ODD_COLUMNS)
def test_against_float64(rows: int, columns: int, num_models: int) -> None:
    logits, weights = random_case(rows, columns, num_models, seed=rows + columns + num_models)
    weights[:, 0] = 1  # rows without any model have no softmax
    logits = [some / 4 for some in logits]
    wanted = ref_trace(logits[0], with_torch(logits, weights))
    assert_close(traced(logits, weights), wanted)
    fallback, out = torch.empty(rows, 5), torch.empty(rows, columns)
    trace_with_torch(logits, weights, out, fallback)
    assert_close(fallback, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [151936, 152064])
def test_real_vocabularies(columns: int, dtype: torch.dtype) -> None:
    """Logits like a language model's: most near 0, some far above, a mix that moves them a little."""
    generator = torch.Generator().manual_seed(columns)
    base = torch.randn(3, columns, generator=generator) * 2.5
    base[:, :20] += 18
    moved = [base + torch.randn(3, columns, generator=generator) * spread for spread in (0.1, 0.3)]
    logits = [some.to(dtype) for some in (base, *moved)]
    logits[2] = logits[2][:, : columns - 271]
    weights = torch.tensor([[1.0, 0.5, -0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    got, mix = traced(logits, weights), with_torch(logits, weights)
    wanted = ref_trace(logits[0], mix)
    torch.testing.assert_close(got.double(), wanted, rtol=2e-7, atol=2e-6)
    assert got[1, KL] == 0, "the base alone does not move"
    assert 0.001 < got[0, KL] < 1 and 0.001 < got[2, KL] < 1
    one_model_against_another = torch.nn.functional.kl_div(
        logits[0][2].double().log_softmax(0), logits[1][2].double().log_softmax(0), reduction="sum", log_target=True
    )
    assert got[2, KL].item() == pytest.approx(one_model_against_another.item(), abs=2e-6)


@pytest.mark.parametrize("place", [0, 1])
def test_in_place(place: int) -> None:
    logits, weights = random_case(5, 4099, 3, seed=1, dtype=torch.float32)
    weights[:, 0] = 1
    logits = [some[:, :4090] for some in logits]
    wanted = traced(logits, weights)
    assert_same_bits(traced(logits, weights, out=logits[place]), wanted)
    assert (wanted[:, KL] > 0.1).any()


@pytest.mark.parametrize("kernel", ["torch", pytest.param("library", marks=needs_library)])
def test_special_numbers(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel == "torch":
        monkeypatch.setattr("vllm_rast.kernels.combine.native", lambda kind: False)
    base = torch.zeros(7, 2050)
    positive = torch.zeros(7, 2048)
    base[0, 5:] = -INF  # five columns are left, and the mix has them too
    base[1, 3] = NAN
    base[2, 3] = INF
    positive[3, 2047] = NAN
    positive[4, :] = -INF  # no probability anywhere
    base[5, 7] = -INF  # the positive alone gives something to a column that the base rules out
    positive[6, :2047] = -INF  # all on one column
    weights = torch.ones(7, 2)
    weights[5, 0] = 0
    got = traced([base, positive], weights)
    five, most, every = math.log(5), math.log(2048), math.log(2050)
    wanted = [
        [0, five, 0, five, 0],
        [NAN] * 5,
        [NAN] * 5,
        [0, every, NAN, NAN, NAN],
        [0, every, -INF, -INF, NAN],
        [0, math.log(2049), 0, most, INF],
        [0, every, 0, 0, every],
    ]
    assert_close(got, torch.tensor(wanted))


def test_no_columns() -> None:
    trace = torch.zeros(2, 5)
    combine_logits([torch.empty(2, 0)], torch.ones(2, 1), trace=trace)
    torch.testing.assert_close(trace, torch.tensor([[-INF, -INF, -INF, -INF, NAN]] * 2), equal_nan=True)


@needs_library
def test_instruction_sets_and_threads_agree() -> None:
    library = DECIDED.library
    assert library is not None
    best, threads = kernels.instruction_set(library), torch.get_num_threads()
    logits, weights = random_case(9, 40003, 4, seed=3)
    wanted = traced(logits, weights)
    try:
        for name in build.instruction_sets():
            if kernels.instruction_set(library, name) == name:  # else this processor lacks it
                assert_same_bits(traced(logits, weights), wanted)
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert_same_bits(traced(logits, weights), wanted)
    finally:
        kernels.instruction_set(library, best)
        torch.set_num_threads(threads)


def test_opcheck() -> None:
    for dtype in DTYPES:
        logits, weights = random_case(3, 70, 3, seed=5, dtype=dtype)
        arguments = (logits, weights, torch.empty(3, 70), torch.empty(3, 5))
        torch.library.opcheck(torch.ops.vllm_rast.combine_logits_traced.default, arguments)


def test_inside_a_compiled_graph() -> None:
    logits, weights = random_case(3, 70, 3, seed=6)

    def run(weights: torch.Tensor, *logits: torch.Tensor) -> torch.Tensor:
        trace = torch.empty(3, 5)
        combine_logits(logits, weights, trace=trace)
        return trace + 1

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    assert_same_bits(compiled(weights, *logits), run(weights, *logits))


@pytest.mark.parametrize("trace", [torch.empty(2, 4), torch.empty(2, 5).double(), torch.empty(5, 2).t()])
def test_a_trace_that_does_not_fit(trace: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="^trace: "):
        combine_logits([torch.ones(2, 3)], torch.ones(2, 1), trace=trace)
    if DECIDED.library is not None:
        with pytest.raises(RuntimeError):
            torch.ops.vllm_rast.combine_logits_traced([torch.ones(2, 3)], torch.ones(2, 1), torch.ones(2, 3), trace)


def test_slices_of_rows() -> None:
    """What ranks under tensor parallelism know of their slices gives the whole row's trace."""
    logits, weights = random_case(6, 3001, 3, seed=7, dtype=torch.float32)
    logits = [some / 4 for some in logits]
    weights[:, 0] = 1
    logits[1] = logits[1][:, :1900]  # the last slices have nothing of the mix, where this model takes part
    whole, parts = traced(logits, weights), []
    for start in (0, 1000, 2000, 3000, 4000):  # and the last has no columns at all
        slices = [some[:, start : start + 1000] for some in logits]
        parts.append(traced(slices, weights))
    assert_close(merge_slices(torch.stack(parts)), whole)


def test_sums() -> None:
    sums = TraceSums(torch.device("cpu"))
    weights = torch.tensor([[1.0, 0.5], [1.0, 0.0], [0.0, 1.0], [1.0, -0.5], [1.0, 1.0], [1.0, 1.0]])
    trace = torch.zeros(6, 5)
    trace[:, KL] = torch.tensor([0.25, 0.0, 9.0, 0.5, NAN, INF])
    for _ in range(2):
        sums.add(trace[:, KL], weights)
    sums.add(trace[:0, KL], weights[:0])
    sums.add(torch.full((6,), -1.0), weights)  # left out: a gate was closed, or will be looked at
    assert sums.read() == {"kl_nats": 1.5, "rows": 4}, "two rows that mix, twice"
    assert sums.read(take=True) == {"kl_nats": 1.5, "rows": 4}
    assert sums.read() == {"kl_nats": 0.0, "rows": 0}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("columns", [*ODD_COLUMNS, 151936])
@pytest.mark.parametrize("rows", [0, 1, 3, 257])
def test_cuda(rows: int, columns: int) -> None:
    """Called, then replayed from a graph."""
    logits, weights = random_case(rows, columns, 3, seed=8)
    logits = [some / 4 for some in logits]
    weights[:, 0] = 1
    wanted = traced(logits, weights)
    on_gpu, gpu_weights = [some.cuda() for some in logits], weights.cuda()
    out, trace = torch.empty(rows, columns, device="cuda"), torch.empty(rows, 5, device="cuda")
    combine_logits(on_gpu, gpu_weights, out, trace)
    assert_close(trace.cpu(), wanted)
    if rows:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            combine_logits(on_gpu, gpu_weights, out, trace)
        trace.zero_()
        graph.replay()
        assert_close(trace.cpu(), wanted)


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], random_models: dict[str, str]) -> Any:
    return start_engine(
        random_models["base"], positive=random_models["positive"], negative=random_models["negative"], trace=True
    )


def test_an_engine_sums_what_it_decoded(engine: Any, random_models: dict[str, str]) -> None:
    """Against the same sums from transformers; warming up and rows of a single model do not count."""
    models = {name: random_models[name] for name in ("positive", "negative")}
    reference = ReferenceLLM(RastConfig.build(random_models["base"], **models))
    assert engine.collective_rpc("rast_trace") == [{"kl_nats": 0, "rows": 0}]
    prompts = make_prompts(6, seed=50)
    alphas = [0, 0.5, 2, "positive", -0.3, {"alpha": 1, "warmup": 9}]
    answers = decode(engine, prompts, alphas)
    kl, rows = 0.0, 0
    for prompt, answer, alpha in zip(prompts, answers, alphas, strict=True):
        if alpha in (0, "positive"):
            continue
        tokens = [*prompt, *answer]
        base, mix = (reference.logits(tokens, some)[len(prompt) - 1 : -1] for some in ("base", alpha))
        if isinstance(alpha, dict):
            base, mix = base[9:], reference.logits(tokens, 1)[len(prompt) - 1 : -1][9:]
        kl += float(ref_trace(base, mix)[:, KL].sum())
        rows += len(mix)
    (sums,) = engine.collective_rpc("rast_trace")
    assert sums == {"kl_nats": pytest.approx(kl, rel=1e-4), "rows": rows} and kl / rows > 0.01
    assert engine.collective_rpc("rast_trace", args=(True,)) == [sums]
    assert engine.collective_rpc("rast_trace") == [{"kl_nats": 0, "rows": 0}]


def test_an_engine_without_a_trace() -> None:
    class Plain(TracingMixin):
        def get_model(self) -> Any:
            return torch.nn.Linear(1, 1)

    with pytest.raises(UserError, match='^trace: .*"trace": true'):
        Plain().rast_trace()
