"""Token traces: each number from its definition in float64 on transformers' logits, against an engine's."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from greedy import GATES, decode, make_prompts, params
from random_models import NUM_TOKENS, make_model

from vllm_rast import RastConfig, UserError
from vllm_rast.kernels.token_trace import model_labels, trace_columns, trace_tokens
from vllm_rast.llm import Answer
from vllm_rast.reference import ReferenceLLM

INTEGERS = ("_rank", "_argmax")
ALPHAS: list[Any] = [None, 0, [0.5, -1], "base", "positive", "ceiling", 2, {"alpha": [1, 0.5], "warmup": 5}]
ALPHAS += [{"ramp": [[0, 0], [12, 2]]}, [[0, 1], [4, 0], [9, 2]], *GATES]


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def numbers_of_row(logits: dict[str, np.ndarray], token: int, pairs: dict[str, tuple[str, str]]) -> dict[str, float]:
    """One row of a trace from the definitions, in float64. logits: of each label, all of one width, -inf for no id."""
    shares, numbers = {}, {}
    for label, some in logits.items():
        weights = np.exp(some - some.max())
        shares[label] = p = weights / weights.sum()
        numbers |= {
            f"{label}_logprob": math.log(p[token]) if p[token] else -math.inf,
            f"{label}_rank": 1 + sum(some > some[token]),
            f"{label}_entropy": -sum(a * math.log(a) for a in p if a),
            f"{label}_argmax": int(np.argmax(some)),
        }
    numbers["kl_mix_base"] = kl(shares["mix"], shares["base"])
    for name in ("mix", "ceiling"):
        middle = (shares[name] + shares["base"]) / 2
        numbers[f"js_{name}_base"] = (kl(shares[name], middle) + kl(shares["base"], middle)) / 2
    moved = abs(shares["mix"] - shares["base"])
    numbers["tv_mix_base"] = sum(moved) / 2
    outside = np.argsort(-shares["base"])[20:]
    numbers["implausible"] = sum(moved[outside]) / sum(moved) if sum(moved) > 0.01 else math.nan
    known = np.all([np.isfinite(logits[label]) for pair in pairs.values() for label in pair], axis=0)
    deltas = {end: logits[p][known] - logits[n][known] for end, (p, n) in pairs.items()}
    lead = logits["ceiling"][known] - logits["base"][known]
    for end, (positive, negative) in pairs.items():
        delta = deltas[end]
        numbers |= {
            f"kl_positive_negative{end}": kl(shares[positive], shares[negative]),
            f"delta{end}": delta[token],
            f"delta_size{end}": math.sqrt(delta @ delta),
            f"delta_cosine_ceiling{end}": cosine(delta, lead),
            f"delta_cosine_ceiling{end}_centred": cosine(delta - delta.mean(), lead - lead.mean()),
        }
    one, other = deltas.values()
    numbers["delta_cosine_1_2"] = cosine(one, other)
    numbers["delta_cosine_1_2_centred"] = cosine(one - one.mean(), other - other.mean())
    return numbers


PAIRS = {"": ("positive", "negative"), "_2": ("positive_2", "negative")}


def expected(reference: ReferenceLLM, answer: Answer) -> list[dict[str, float]]:
    """The rows of an answer's trace from the reference's logits."""
    tokens, start = [*answer.prompt_ids, *answer.answer_ids], len(answer.prompt_ids)
    labels, alphas = model_labels(reference.config), ["base", "positive", "negative", "positive:2", "ceiling"]
    every = {
        label: reference.logits(tokens, alpha)[start - 1 : -1] for label, alpha in zip(labels, alphas, strict=True)
    }
    every["mix"] = reference.logits(tokens, answer.alpha, num_prompt_tokens=start)[start - 1 : -1]
    logits = {label: some.double().numpy() for label, some in every.items()}
    return [
        numbers_of_row({label: some[i] for label, some in logits.items()}, token, PAIRS)
        for i, token in enumerate(answer.answer_ids)
    ]


def assert_equal(got: np.ndarray, columns: list[str], wanted: list[dict[str, float]]) -> None:
    assert len(got) == len(wanted)
    assert set(columns) == set(wanted[0])
    for column, values in zip(columns, got.T, strict=True):
        right = np.array([row[column] for row in wanted])
        if column.endswith(INTEGERS):
            assert (values == right).all(), column
        else:
            values = np.where(np.isnan(right), math.nan, values) if column == "implausible" else values
            np.testing.assert_allclose(values, right, rtol=2e-4, atol=2e-4, err_msg=column)


@pytest.fixture(scope="module")
def models(random_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two pairs with one negative, and a ceiling with another size than the base's."""
    ceiling = make_model(tmp_path_factory.mktemp("ceiling") / "model", 6, width=96, spread=0.5)
    pairs = [
        {"positive": random_models["positive"], "negative": random_models["negative"], "alpha": 0.5},
        {"positive": random_models["other"], "negative": random_models["negative"], "alpha": 0.3},
    ]
    return {"pairs": pairs, "ceiling": ceiling}


@pytest.fixture(scope="module")
def reference(random_models: dict[str, str], models: dict[str, Any]) -> ReferenceLLM:
    return ReferenceLLM(RastConfig.build(random_models["base"], **models))


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], random_models: dict[str, str], models: dict[str, Any]) -> Any:
    """Prompts come in chunks of at most 48 tokens over all requests."""
    return start_engine(random_models["base"], **models, token_traces=True, max_num_batched_tokens=48)


def make_answers(seed: int) -> list[Answer]:
    prompts, texts = (make_prompts(len(ALPHAS), seed=seed + k, shortest=2 + k, longest=90) for k in (0, 1))
    texts[3] = texts[3][:1]  # an answer of one token: its only row is the prompt's last
    return [Answer(*some) for some in zip(prompts, texts, ALPHAS, strict=True)]


def test_every_number_in_chunks_with_mixed_weights_and_a_warm_cache(engine: Any, reference: ReferenceLLM) -> None:
    answers = make_answers(seed=60)
    for _ in range(2):  # the second time, every block is cached
        # Requests that decode run beside those that are read.
        decode(engine, [[*one.prompt_ids, *one.answer_ids] for one in answers], [one.alpha for one in answers])
        got = dict(engine.trace_answers(answers))
        assert sorted(got) == list(range(len(answers)))
        for key, answer in enumerate(answers):
            assert_equal(got[key], engine.trace_columns, expected(reference, answer))


def test_traces_beside_requests_that_decode(engine: Any, reference: ReferenceLLM) -> None:
    """In one batch: on a CPU a step leaves out the models that nobody needs, which a trace does."""
    (prompt,) = make_prompts(1, seed=70)
    answers = make_answers(seed=71)[:4]
    for _ in range(3):
        engine.enqueue({"prompt_token_ids": prompt}, params("base", ignore_eos=True, max_tokens=60), use_tqdm=False)
    for key, numbers in engine.trace_answers(answers):
        assert_equal(numbers, engine.trace_columns, expected(reference, answers[key]))
    while engine.llm_engine.has_unfinished_requests():
        engine.llm_engine.step()


def test_blocks_of_rows(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few rows are looked at together, the numbers are the same; and no block is larger than it may be."""
    from vllm_rast.engine import token_traces

    answers, seen = make_answers(seed=80), []
    whole = dict(engine.trace_answers(answers))

    def watched(logits: list[torch.Tensor], *rest: Any) -> torch.Tensor:
        seen.append(logits[0].shape[0])
        return trace_tokens(logits, *rest)

    monkeypatch.setattr(token_traces, "trace_tokens", watched)
    monkeypatch.setattr(token_traces, "BLOCK_BYTES", 7 * 4 * 128)
    monkeypatch.setattr(token_traces, "PIECE_BYTES", 3 * 4 * 128)
    blocks = dict(engine.trace_answers(answers))
    assert set(seen) == {3, 1, 2} and seen[:3] == [3, 3, 1]
    for key in whole:
        np.testing.assert_allclose(blocks[key], whole[key], rtol=1e-5, atol=1e-5)


def test_nothing_stays_behind(engine: Any) -> None:
    answers = make_answers(seed=90)
    for _ in engine.trace_answers(answers):
        break  # the others are aborted
    assert engine.collective_rpc("rast_token_traces") == [[]]
    assert len(list(engine.trace_answers(answers[:1]))) == 1
    (running,) = engine.collective_rpc(lambda worker: len(worker.get_model().token_traces.running))
    assert running == 0


def test_what_is_refused(engine: Any, random_models: dict[str, str]) -> None:
    prompt = [3, 4, 5]
    cases = [
        ({"key": 0, "start": 1}, 'expected {"key'),
        ({"key": 0, "start": 4, "last": 3}, "token_trace.start: expected an integer from 1 to 3, got 4"),
        ({"key": 0, "start": 1, "last": 128}, "token_trace.last: expected an integer from 0 to 127, got 128"),
        ({"key": True, "start": 1, "last": 3}, "token_trace.key: "),
        (7, "expected"),
    ]
    for asked, message in cases:
        request = params(max_tokens=1)
        request.extra_args = {"token_trace": asked}
        with pytest.raises(UserError, match=message):
            engine.generate([{"prompt_token_ids": prompt}], request, use_tqdm=False)
    with pytest.raises(UserError, match="answers.0.: a prompt and an answer need a token each"):
        list(engine.trace_answers([Answer([3], [])]))
    with pytest.raises(UserError, match="ceiling: .* is the base itself"):
        RastConfig.build(random_models["base"], ceiling=random_models["base"])


def test_tokens_that_a_model_does_not_have() -> None:
    """The base alone can sample a padding id: no other model gives it anything."""
    config = RastConfig.build("o/base", "o/rl", "o/small")
    logits = [torch.zeros(1, 8), torch.ones(1, 6), torch.zeros(1, 6)]
    weights = torch.tensor([[1.0, 1.0, -1.0]])
    numbers = dict(zip(trace_columns(config), trace_tokens(logits, weights, torch.tensor([7]), config)[0], strict=True))
    assert numbers["base_logprob"] == pytest.approx(-math.log(8))
    for label in ("positive", "negative", "mix"):
        assert numbers[f"{label}_logprob"] == -math.inf and numbers[f"{label}_rank"] == 7
    assert numbers["kl_mix_base"] == pytest.approx(math.log(8 / 6))
    assert math.isnan(numbers["delta"]) and numbers["delta_size"] == pytest.approx(math.sqrt(6))


def test_large_vocabularies_in_float32() -> None:
    """Logits of a language model's size, against float64: what rounding there is stays below 1e-5 nats."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(3, 151936, generator=generator) * 2.5
    base[:, :20] += 18
    small = [base + torch.randn(base.shape, generator=generator) * 0.1 for _ in range(2)]
    config = RastConfig.build("o/base", "o/rl", "o/small")
    arguments = torch.tensor([[1.0, 0.5, -0.5]] * 3), torch.tensor([0, 5, NUM_TOKENS]), config
    got = dict(zip(trace_columns(config), trace_tokens([base, *small], *arguments).T, strict=True))
    p = (base.double() + 0.5 * (small[0].double() - small[1].double())).log_softmax(1)
    q = base.double().log_softmax(1)
    torch.testing.assert_close(got["kl_mix_base"].double(), (p.exp() * (p - q)).sum(1), rtol=1e-4, atol=5e-6)
    torch.testing.assert_close(got["mix_entropy"].double(), -(p.exp() * p).sum(1), rtol=1e-5, atol=1e-5)


SCRIPT = """
import json, sys
from vllm import SamplingParams
from vllm_rast import RastLLM
from vllm_rast.llm import Answer

if __name__ == "__main__":
    job = json.load(open(sys.argv[1]))
    engine = RastLLM(job["base"], **job["models"], token_traces=True, tensor_parallel_size=2, dtype="float32",
                     max_model_len=256, max_num_seqs=8, block_size=32, enforce_eager=True)
    traces = engine.trace_answers(Answer(*answer) for answer in job["answers"])
    read = {key: numbers.tolist() for key, numbers in traces}
    asked = [SamplingParams(temperature=0, max_tokens=9, extra_args={"alpha": answer[2], "trace": 1})
             for answer in job["answers"]]
    outputs = engine.generate([{"prompt_token_ids": answer[0]} for answer in job["answers"]], asked, use_tqdm=False)
    samples = [output.outputs[0] for output in outputs]
    decoded = [
        [list(one.token_ids), {name: some.tolist() for name, some in one.token_trace.items()}] for one in samples
    ]
    json.dump({"read": read, "decoded": decoded}, open(sys.argv[2], "w"))
"""


def test_two_ranks(
    tmp_path: Path, random_models: dict[str, str], models: dict[str, Any], reference: ReferenceLLM
) -> None:
    """Engine and workers in processes of their own; heads of 128 and of 98 rows are cut alike. What is read, and what
    is traced while it is decoded."""
    answers = make_answers(seed=100)
    (tmp_path / "job.json").write_text(
        json.dumps({"base": random_models["base"], "models": models, "answers": answers})
    )
    (tmp_path / "trace.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "trace.py", tmp_path / "job.json", tmp_path / "traces.json"]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    done = forked.run(command, env=environment, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    got, decoded = json.loads((tmp_path / "traces.json").read_text()).values()
    assert sorted(got, key=int) == [str(key) for key in range(len(answers))]
    columns = trace_columns(reference.config)
    for key, answer in enumerate(answers):
        assert_equal(np.array(got[str(key)]), columns, expected(reference, answer))
    for answer, (ids, trace) in zip(answers, decoded, strict=True):
        text, start = [*answer.prompt_ids, *ids], len(answer.prompt_ids)
        for label, alpha in {
            "mix": answer.alpha,
            "base": "base",
            "positive_2": "positive:2",
            "ceiling": "ceiling",
        }.items():
            rows = reference.logits(text, alpha, start).log_softmax(-1)[start - 1 : -1].numpy()
            np.testing.assert_allclose(trace[f"{label}_logprob"], rows[np.arange(len(ids)), ids], atol=2e-4)
            assert trace[f"{label}_top1"] == rows.argmax(axis=1).tolist()
