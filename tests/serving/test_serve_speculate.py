"""`vllm-rast serve --speculate`: the same answers, a request's own number of drafts, and the counters that tell."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import forked
import pytest
from dashboard import metrics_of_the_dashboard
from questions import PROMPTS
from serving import Server, serving

from vllm_rast import RastConfig
from vllm_rast.engine.launch import TINY_ENGINE
from vllm_rast.serving.requests import BodyError, DraftsError, RequestWeights, requested_alpha, requested_drafts

DRAFTS = "vllm:spec_decode_num_drafts_total"
DRAFTED = "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"
PLACES: list[Callable[[Any], dict[str, Any]]] = [
    lambda count: {"speculate": count},
    lambda count: {"vllm_xargs": {"speculate": count}},
    lambda count: {"sampling_params": {"extra_args": {"speculate": count}}},
]


def reader(speculate: int | str) -> RequestWeights:
    config = RastConfig.build("some/base", "some/positive", "some/negative", speculate=speculate)
    return RequestWeights(None, config, {})  # type: ignore[arg-type]


def choose(speculate: int | str, body: dict[str, Any]) -> dict[str, Any]:
    requested_alpha.set(None)
    requested_drafts.set(None)
    return json.loads(reader(speculate).choose(json.dumps(body).encode()))


# What a request says


@pytest.mark.parametrize("place", PLACES)
def test_a_number_leaves_the_body_and_is_noted(place: Callable[[Any], dict[str, Any]]) -> None:
    for count in (0, 2, 3):
        left = choose(3, {"prompt": "Hi", "alpha": 0.5, **place(count)})
        assert "speculate" not in json.dumps(left) and left["prompt"] == "Hi"
        assert (requested_drafts.get(), requested_alpha.get()) == (count, 0.5)
    choose(0, place(0))
    assert requested_drafts.get() == 0
    choose("auto", place(8))
    assert requested_drafts.get() == 8
    assert "speculate" not in json.dumps(choose(3, place(None)))
    assert requested_drafts.get() is None


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("count", [4, -1, 1.5, "2", True, [1], {}])
def test_a_wrong_number_is_refused(place: Callable[[Any], dict[str, Any]], count: Any) -> None:
    with pytest.raises(DraftsError, match="^speculate: expected an integer from 0 to 3, got "):
        choose(3, place(count))
    with pytest.raises(DraftsError, match="^speculate: "):
        choose(0, place(count))


def test_places_agree_and_names_are_exact() -> None:
    choose(3, {"speculate": 1, "vllm_xargs": {"speculate": 1}})
    assert requested_drafts.get() == 1
    with pytest.raises(DraftsError, match="vllm_xargs.speculate says 2 and speculate says 1"):
        choose(3, {"speculate": 1, "vllm_xargs": {"speculate": 2}})
    with pytest.raises(DraftsError, match="vllm_xargs.Speculate: write speculate in lower case"):
        choose(3, {"vllm_xargs": {"Speculate": 1}})
    with pytest.raises(DraftsError, match="^speculate: this engine makes no drafts; start it with speculate"):
        choose(0, {"speculate": 1})
    with pytest.raises(BodyError):
        reader(3).choose(b"{")


# The server


@pytest.fixture(scope="module")
def drafting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ["--speculate", "3", "--expose", "base", "--ui"]
    with serving(
        tmp_path_factory.mktemp("speculate"), *options, popen=forked.Popen, VLLM_LOGGING_LEVEL="INFO"
    ) as server:
        yield server


def counts(server: Server) -> tuple[int, ...]:
    """Steps that verified drafts, drafts, and drafts kept."""
    return tuple(int(server.metric(name)) for name in (DRAFTS, DRAFTED, ACCEPTED))


def grown(server: Server, before: tuple[int, ...]) -> list[int]:
    return [now - then for now, then in zip(counts(server), before, strict=True)]


def test_answers_are_the_mix_s_own(drafting_server: Server, start_engine: Callable[..., Any]) -> None:
    """Greedy, token for token, with every number of drafts that a request may choose, alone and in one batch."""
    from vllm import SamplingParams

    llm = start_engine("tiny:base", positive="tiny:positive", negative="tiny:negative", **TINY_ENGINE)
    for alpha in (None, 0.4, "positive", "base"):
        extra = {} if alpha is None else {"alpha": alpha}
        params = SamplingParams(temperature=0, max_tokens=24, extra_args=extra)
        expected = [list(one.outputs[0].token_ids) for one in llm.generate(PROMPTS, params, use_tqdm=False)]
        for own in ({}, {"speculate": 0}, {"vllm_xargs": {"speculate": 1}}, {"speculate": 3}):
            answer = drafting_server.complete(PROMPTS, return_token_ids=True, **extra, **own)
            assert [choice["token_ids"] for choice in answer["choices"]] == expected, (alpha, own)


def test_a_request_chooses_how_much_is_drafted(drafting_server: Server) -> None:
    """Samples too do not depend on it: seed, position and distributions are all that a token follows from."""
    sampling = {"temperature": 1.0, "seed": 5, "max_tokens": 24, "ignore_eos": True}
    texts = []
    for count in (None, 0, 1, 2):
        before = counts(drafting_server)
        texts.append(drafting_server.tokens(PROMPTS[0], **sampling, speculate=count))
        drafts, drafted, accepted = grown(drafting_server, before)
        assert accepted <= drafted <= drafts * (3 if count is None else count)
        assert (drafts > 0) == (count != 0)
    assert texts[1:] == texts[:1] * 3
    before = counts(drafting_server)
    drafting_server.tokens(PROMPTS[0], model="tiny:base:base")
    assert grown(drafting_server, before) == [0, 0, 0], "the base alone drafts nothing on a CPU"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/responses"])
def test_a_wrong_number_is_a_bad_request(drafting_server: Server, path: str, stream: bool) -> None:
    asked = {"prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}], "input": "Hi"}
    for own in ({"speculate": 4}, {"vllm_xargs": {"speculate": True}}):
        status, answer = drafting_server.post(path, {"model": "tiny:base", "stream": stream, **asked, **own})
        assert status == 400 and answer["error"]["param"] == "speculate"
        assert re.fullmatch("speculate: expected an integer from 0 to 3, got (4|True)", answer["error"]["message"])


def test_the_counters_and_the_page_tell(drafting_server: Server) -> None:
    before = counts(drafting_server)
    tokens = drafting_server.tokens(PROMPTS[0], model="tiny:base", alpha="positive", ignore_eos=True)
    drafts, drafted, accepted = grown(drafting_server, before)
    assert accepted == drafted, "the drafter agrees with itself"
    assert len(tokens) == 24 == 1 + drafts + accepted, "the prompt's step, and each later one with what it kept"
    per_position = 'vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="tiny:base",position="2"}'
    told = [line for line in drafting_server.get("/metrics").splitlines() if not line.startswith("#")]
    assert any(line.startswith(per_position) and not line.endswith(" 0.0") for line in told)
    asked = {name for name in metrics_of_the_dashboard() if "spec_decode" in name}
    assert len(asked) == 3 and asked <= {re.split("[{ ]", line)[0] for line in told}
    assert json.loads(drafting_server.get("/ui/config.json"))["speculate"] == 3
    assert "speculate 3: tiny:positive drafts, all models verify; no extra weights" in drafting_server.log.read_text()
