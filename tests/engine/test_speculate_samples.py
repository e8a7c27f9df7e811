"""At a temperature the samples follow the mix exactly: the first three tokens against the reference, chi-square.

`scripts/prove_speculation.py` does the same with 20,000 samples of the shipped models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import vllm._custom_ops  # noqa: F401  (loads what coupling draws with)
from exact import assert_coupled, cells, chi_square
from greedy import make_prompts, params
from v1 import drafts

from vllm_rast import RastConfig
from vllm_rast.engine import coupling, noise
from vllm_rast.reference import ReferenceLLM

SAMPLES = 1500
# The tests are seeded, so they pass or fail for good; wrong sampling gives values of p below 1e-10.
LEAST_P = 1e-3


@pytest.fixture(scope="module")
def config(random_models: dict[str, str]) -> RastConfig:
    """base + alpha * positive: with random models that is what both sides of a draft agree on best."""
    return RastConfig.build(random_models["base"], random_models["positive"])


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], config: RastConfig) -> Any:
    (pair,) = config.pairs
    return start_engine(config.base, positive=pair.positive, speculate=2, max_num_seqs=128)


@pytest.mark.parametrize(
    ("alpha", "options"),
    [
        (0.5, {}),
        (2, {"top_p": 0.8}),
        ("positive", {}),
        ({"alpha": 2, "warmup": 1}, {"temperature": 1.7}),
        (1, {"temperature": 0.9, "top_p": 0.95}),
        ({"alpha": 1, "gate": {"js": 0.1, "top": 0.05}}, {}),
    ],
)
def test_first_three_tokens(engine: Any, config: RastConfig, alpha: Any, options: dict[str, Any]) -> None:
    (prompt,) = make_prompts(1, seed=90)
    sampling = params(alpha, n=SAMPLES, seed=3, max_tokens=4, **{"temperature": 2.0, **options})
    before = drafts(engine)
    (output,) = engine.generate([{"prompt_token_ids": prompt}], [sampling], use_tqdm=False)
    drafted, accepted = drafts(engine) - before
    assert drafted.all() and accepted.sum() > 0
    found = chi_square(
        [sample.token_ids for sample in output.outputs],
        cells(ReferenceLLM(config), prompt, alpha, SAMPLES, **{"temperature": 2.0, **options}),
    )
    print(f"{drafted=} {accepted=} {found=}")
    assert found["cells"] > 5 and found["p"] > LEAST_P, found


def test_the_test_finds_a_wrong_distribution(engine: Any, config: RastConfig) -> None:
    (prompt,) = make_prompts(1, seed=90)
    sampling = params(0.5, n=SAMPLES, seed=3, max_tokens=4, temperature=2.0)
    (output,) = engine.generate([{"prompt_token_ids": prompt}], [sampling], use_tqdm=False)
    wrong = cells(ReferenceLLM(config), prompt, 0.4, SAMPLES, temperature=2.0)
    assert chi_square([sample.token_ids for sample in output.outputs], wrong)["p"] < 1e-4


@pytest.fixture(params=["kernel", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples by the CPU library, or without."""
    if request.param == "torch":
        monkeypatch.setattr(coupling, "native", lambda kind: False)
    elif not coupling.has_kernel(torch.empty(0)):
        pytest.skip("no CPU library")


@pytest.mark.usefixtures("way")
def test_a_coupled_draw_follows_p_and_agrees_as_often_as_can_be() -> None:
    number, vocab = 100_000, 12
    generator = torch.Generator().manual_seed(1)
    p, q = torch.randn(1, vocab, generator=generator) * 1.5, torch.randn(1, vocab - 2, generator=generator) * 1.5
    p[0, 3] = -torch.inf
    seeds, positions = torch.full((number,), 5), torch.arange(number)
    tokens = coupling.draw_coupled(p.repeat(number, 1), q.repeat(number, 1), seeds, positions)
    guesses = coupling.draw_drafts(q.repeat(number, 1), seeds, positions)
    assert_coupled(p[0], q[0], tokens.tolist(), guesses.tolist(), tolerance=0.005)


def test_both_ways_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts, tokens and residuals, with the drafter's rows in another order and temperatures of their own."""
    number, vocab = 1500, 3000
    generator = torch.Generator().manual_seed(4)
    p = torch.randn(number, vocab, generator=generator) * 3
    q = (p + torch.randn(number, vocab, generator=generator))[:, :-50]
    p[::3, 40:] = -torch.inf
    order = torch.randperm(number, generator=generator)
    options = {"rows": order.argsort(), "temperatures": torch.tensor([0.0, 0.8, 1.0, 1.7, 1.0]).repeat(300)}
    seeds, positions = torch.randint(2**62, (number,), generator=generator), torch.arange(number)
    if not coupling.has_kernel(p):
        pytest.skip("no CPU library")

    def draws() -> list[torch.Tensor]:
        drafts = coupling.draw_drafts(q, seeds, positions, options["temperatures"])
        return [drafts, coupling.draw_coupled(p, q[order], seeds, positions, **options)]

    (drafts, tokens), _ = draws(), monkeypatch.setattr(coupling, "native", lambda kind: False)
    assert [drafts.tolist(), tokens.tolist()] == [some.tolist() for some in draws()]
    assert 200 < int((tokens != drafts).sum()) < 1300


def test_noise_depends_on_seed_position_and_purpose() -> None:
    seeds = torch.tensor([-1, 0, 1, 2**62]).repeat_interleave(2000)
    positions = torch.arange(2000).repeat(4)
    every = torch.stack([noise.hashes(seeds, positions, purpose) for purpose in range(noise.PURPOSES)])
    assert len(every.unique()) == every.numel()
    assert (noise.hashes(seeds.flip(0), positions.flip(0), noise.DRAFT).flip(0) == every[noise.DRAFT]).all()
    uniform = noise.uniforms(seeds, positions, noise.ACCEPT)
    assert uniform.min() >= 0 and uniform.max() < 1 and float(uniform.mean()) == pytest.approx(0.5, abs=0.02)
    neighbours = torch.corrcoef(torch.stack([uniform[:-1], uniform[1:]]))[0, 1]
    assert abs(float(neighbours)) < 0.05
    assert (noise.row_seeds(seeds, positions, noise.RESIDUAL) >= 0).all()


def test_noise_is_splitmix64() -> None:
    """The first numbers of its seed 1234567, as published; `mixed` is also what makes a seed of a request's seed."""
    found = noise.mixed(1234567 + torch.tensor([1, 2, 3]) * noise.GAMMA)
    assert [number % 2**64 for number in found.tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_nothing_is_left_where_both_agree() -> None:
    """A residual of zeros, which only rounding can ask for, gives a token that the mix has."""
    p = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert coupling.draw_residual(p, p.clone(), torch.tensor([1]), torch.tensor([2])).tolist() == [1]


def test_a_draw_of_some_rows_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library: in parts that fit into memory, and on devices that compute the residual of every row."""
    monkeypatch.setattr(coupling, "native", lambda kind: False)
    generator = torch.Generator().manual_seed(2)
    p, q = torch.randn(1000, 12, generator=generator), torch.randn(1000, 10, generator=generator)
    seeds, positions = torch.arange(1000), torch.arange(1000) % 7
    tokens = coupling.draw_coupled(p, q, seeds, positions)
    monkeypatch.setattr(coupling, "ROWS_AT_ONCE", 1000)
    assert (coupling.draw_coupled(p, q, seeds, positions) == tokens).all()
    residual = coupling.draw_residual(p, q, seeds, positions)
    drafts = coupling.draw_drafts(q, seeds, positions)
    assert ((tokens == drafts) | (tokens == residual)).all() and (tokens == drafts).any() and (tokens != drafts).any()
