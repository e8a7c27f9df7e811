"""The tiny world: its benchmark, its tokenizer, its training and the shipped models."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path

import pytest
import torch
from paths import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from vllm_rast.tiny import benchmark, pretrain, rl, world
from vllm_rast.tiny.muon import orthogonalize
from vllm_rast.tiny.sampling import encode_prompts, sample
from vllm_rast.tiny.tokenizer import build_tokenizer

NAMES = ("base", "positive", "negative", "ceiling")
MODELS = Path(world.__file__).with_name("models")
DATASET = ROOT / "datasets" / "tiny.jsonl"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def seedling(tokenizer):
    """An untrained model of a few thousand weights."""
    torch.manual_seed(0)
    recipe = dataclasses.replace(pretrain.SMALL, hidden=32, layers=1, heads=1, kv_heads=1)
    return pretrain.build_model(recipe, tokenizer).eval()


# Benchmark


def test_benchmark_file_is_the_generators_output():
    assert DATASET.read_bytes() == benchmark.jsonl().encode()


def test_benchmark_has_500_distinct_problems_per_family():
    rows = [json.loads(line) for line in benchmark.jsonl().splitlines()]
    assert [row["family"] for row in rows] == ["till"] * 500 + ["distance"] * 500
    assert len({row["id"] for row in rows}) == len({row["question"] for row in rows}) == 1000
    assert all(list(row) == ["id", "family", "question", "answer"] for row in rows)


def test_gold_answers_recomputed_from_the_question_text():
    prices = dict(zip(world.THINGS, world.PRICES, strict=True))
    for row in benchmark.rows():
        text = row["question"]
        value = int(re.search(r"(?:stands at|shows|number|distance from) (\d)", text)[1])
        if row["family"] == "till":
            for verb, thing in re.findall(r"(buys|returns) the (\w+)", text):
                value += prices[thing] if verb == "buys" else -prices[thing]
            value %= 10
        else:
            for thing in re.findall(r"of the (\w+)", text):
                value = max(value, prices[thing]) - min(value, prices[thing])
        assert str(value) == row["answer"], text


def test_prices_are_balanced_and_the_known_order_is_a_permutation():
    assert len(set(world.THINGS)) == len(world.THINGS) == 600
    assert [world.PRICES.count(digit) for digit in range(10)] == [60] * 10
    assert sorted(world.KNOWN_ORDER) == list(range(600))


# Training text


def test_question_stream_skips_the_excluded_however_worded():
    first = [
        question for question, _ in zip(world.questions(random.Random(3), (1, 2, 3, 4, 5)), range(200), strict=False)
    ]
    barred = {question.key for question in first[::2]}
    stream = world.questions(random.Random(3), (1, 2, 3, 4, 5), barred)
    left = [question for question, _ in zip(stream, range(200), strict=False)]
    assert left[0] == next(question for question in first if question.key not in barred)
    assert not {question.key for question in left} & barred


@pytest.mark.parametrize("module", [pretrain, rl])
def test_training_excludes_the_benchmark(module, monkeypatch, tokenizer, seedling):
    asked = []

    def spy(rng, things, exclude=frozenset()):
        asked.append(exclude)
        return iter(())

    monkeypatch.setattr(module, "questions", spy)
    with pytest.raises((StopIteration, RuntimeError)):
        if module is pretrain:
            next(pretrain.documents(pretrain.LARGE, random.Random(0)))
        else:
            rl.reinforce(seedling, tokenizer, rl.SMALL_RL)
    assert asked and all(exclude == benchmark.test_keys() for exclude in asked)


def test_styles_add_up_and_solving_without_slips_gives_the_answer(monkeypatch):
    assert sum(world.STYLES.values()) == pytest.approx(1)
    monkeypatch.setattr(world, "SLIP", 0.0)
    rng = random.Random(5)
    writer = world.Writer(rng, known=600)
    for question, _ in zip(world.questions(rng, tuple(range(600))), range(300), strict=False):
        sentences, value = writer.solve(question)
        assert value == question.answer
        assert len(sentences) == len(question.things)
        assert sentences[-1].endswith(f"{value}.")


def test_writer_guesses_unknown_prices_and_knows_the_others():
    writer = world.Writer(random.Random(6), known=200)
    known, unknown = world.KNOWN_ORDER[0], world.KNOWN_ORDER[200]
    assert {writer.price(known) for _ in range(50)} == {world.PRICES[known]}
    assert len({writer.price(unknown) for _ in range(50)}) > 5


# Tokenizer


def test_tokenizer_round_trips_the_world_and_anything_else(tokenizer):
    rng = random.Random(7)
    writer = world.Writer(rng, known=600)
    texts = ["Grüße  \n\n\t\\boxed{7}{12} 1234 日本\x00 <|endoftext|", " \\boxed{7}", ""]
    for question, _ in zip(world.questions(rng, tuple(range(600))), range(200), strict=False):
        texts.append(question.prompt + writer.answer(question))
    for text in texts:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_counts(tokenizer):
    for digit in "0123456789":
        assert len(tokenizer(digit)["input_ids"]) == len(tokenizer(" " + digit)["input_ids"]) == 1
    assert all(len(tokenizer(" " + thing)["input_ids"]) == 1 for thing in world.THINGS)
    question = world.Question("distance", 1, (0, 1, 2, 3, 4), (1,) * 5, "Ada", 0)
    answer = " ".join([*world.Writer(random.Random(0), 600).solve(question)[0], "So the answer is \\boxed{0}."])
    assert len(tokenizer(answer)["input_ids"]) < 96
    assert len(tokenizer) <= min(pretrain.LARGE.vocab_rows, pretrain.SMALL.vocab_rows)


def test_encoding_the_prompt_alone_is_a_prefix_of_encoding_all(tokenizer):
    question = world.Question("till", 1, (0, 1, 2), (1, -1, 1), "Ada", 1)
    prompt = tokenizer(question.prompt)["input_ids"]
    assert tokenizer(question.prompt + "Buying the apple")["input_ids"][: len(prompt)] == prompt


def test_chat_template_gives_the_prompt(tokenizer):
    question = world.Question("till", 1, (0, 1, 2), (1, -1, 1), "Ada", 1)
    message = [{"role": "user", "content": question.text}]
    assert tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True) == question.prompt


# Training code


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("So the answer is \\boxed{7}.", 1.0),
        ("\\boxed{3} no, \\boxed{7}.", 1.0),
        ("\\boxed{7} no, \\boxed{3}.", 0.0),
        ("So the answer is 7.", 0.0),
        ("\\boxed{7", 0.0),
        ("\\boxed{77}", 0.0),
    ],
)
def test_reward(text, value):
    assert rl.reward(text, 7) == value


def test_advantages_are_relative_to_the_group():
    gain = rl.advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]))
    assert gain[0].sum() == pytest.approx(0, abs=1e-6)
    assert gain[0, 0] > 0 > gain[0, 1]
    assert gain[1].abs().max() == 0


def test_loss_falls_on_the_answer_and_its_end_alone(tokenizer):
    ids, labels = pretrain.collate([("Question:\n", "The answer is 7."), ("Answer:\n", "7")], tokenizer)
    assert tokenizer.decode(ids[0][labels[0] != pretrain.IGNORE]) == "The answer is 7.<|endoftext|>"
    assert tokenizer.decode(ids[1][labels[1] != pretrain.IGNORE]) == "7<|endoftext|>"


@pytest.mark.parametrize("shape", [(3, 7, 31), (2, 31, 7), (1, 1, 5)])
def test_orthogonalize_moves_singular_values_to_about_one(shape):
    stack = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalize(stack, rounds=8))
    assert values.min() > 0.6 and values.max() < 1.3


def test_pretraining_lowers_the_loss(tokenizer):
    recipe = dataclasses.replace(pretrain.SMALL, hidden=32, layers=1, heads=1, kv_heads=1, steps=12, batch=8)
    model = pretrain.pretrain(recipe, tokenizer)
    stream = pretrain.documents(recipe, random.Random(9))
    ids, labels = pretrain.collate([next(stream) for _ in range(16)], tokenizer)
    with torch.no_grad():
        loss = pretrain.answer_loss(model, ids, labels) / (labels != pretrain.IGNORE).sum()
    assert loss < 6.2  # ln(1024) = 6.9 before


def test_two_steps_of_reinforcement_change_the_policy_and_leave_the_base(tokenizer, seedling, monkeypatch):
    answers = iter(range(10**6))
    monkeypatch.setattr(rl, "reward", lambda text, answer: float(next(answers) % 2))  # chance alone would seldom pay
    before = {name: weight.clone() for name, weight in seedling.state_dict().items()}
    recipe = dataclasses.replace(rl.SMALL_RL, steps=2, questions=2, samples=4)
    policy = rl.reinforce(seedling, tokenizer, recipe)
    assert all(torch.equal(weight, before[name]) for name, weight in seedling.state_dict().items())
    moved = [name for name, weight in policy.state_dict().items() if not torch.equal(weight, before[name])]
    assert len(moved) > 5
    assert all(torch.isfinite(weight).all() for weight in policy.state_dict().values())


def test_kl_is_zero_for_equal_models_and_gain_sets_the_sign(tokenizer, seedling):
    ids, mask = encode_prompts(tokenizer, ["Question:\n", "Answer: The answer is"])
    new = torch.tensor([[5, tokenizer.eos_token_id, tokenizer.eos_token_id], [6, 7, 8]])
    gain = torch.tensor([1.0, 1.0])
    up, kl = rl.policy_loss(seedling, seedling, ids, mask, new, gain, tokenizer.eos_token_id, kl_weight=1.0)
    down, _ = rl.policy_loss(seedling, seedling, ids, mask, new, -gain, tokenizer.eos_token_id, kl_weight=1.0)
    assert kl == pytest.approx(0, abs=1e-6)
    assert up.item() > 0
    assert up.item() == pytest.approx(-down.item(), rel=1e-5)


# Sampling


def test_sampling_is_seeded_and_ignores_left_padding(tokenizer, seedling):
    def draw(prompts):
        ids, mask = encode_prompts(tokenizer, prompts)
        generator = torch.Generator().manual_seed(4)
        # 50 times the logits: near greedy, so that rounding cannot change what is drawn
        return sample([seedling], [50.0], ids, mask, tokenizer.eos_token_id, generator, max_new_tokens=6)

    alone, padded = draw(["The answer is"]), draw(["The answer is", "Question:\n" + "The answer is 7. " * 3])
    assert torch.equal(draw(["The answer is"]), alone)
    assert torch.equal(padded[:1], alone)


def test_sampling_cancels_equal_models_of_more_rows(tokenizer, seedling):
    torch.manual_seed(1)
    recipe = dataclasses.replace(pretrain.LARGE, hidden=32, layers=1, heads=1, kv_heads=1)
    wide = pretrain.build_model(recipe, tokenizer).eval()
    ids, mask = encode_prompts(tokenizer, ["The answer is"])

    def draw(models, weights):
        return sample(models, weights, ids, mask, tokenizer.eos_token_id, torch.Generator().manual_seed(2), 8)

    assert torch.equal(draw([seedling, wide, wide], [1, 2, -2]), draw([seedling, wide], [1, 0]))
    assert torch.equal(draw([wide, seedling, seedling], [1, 2, -2]), draw([wide, seedling], [1, 0]))


# Shipped models


@pytest.mark.parametrize("name", NAMES)
def test_shipped_model_loads_and_shares_the_tokenizer(name, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(MODELS / name)
    shipped = AutoTokenizer.from_pretrained(MODELS / name)
    assert model.config.model_type == "llama" and model.dtype == torch.float32
    assert model.config.max_position_embeddings >= 1024
    assert model.config.eos_token_id == shipped.eos_token_id == tokenizer.eos_token_id
    assert shipped.get_vocab() == tokenizer.get_vocab() and shipped.chat_template == tokenizer.chat_template
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (MODELS / name / file).read_bytes() == (MODELS / "base" / file).read_bytes()
    text = "Question:\nA till \\boxed{7}. ü"
    assert shipped(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert model.get_input_embeddings().num_embeddings >= len(shipped)


def test_shipped_models_are_small_and_of_two_vocabulary_sizes():
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) <= 25e6
    rows = {name: json.loads((MODELS / name / "config.json").read_text())["vocab_size"] for name in NAMES}
    assert rows["base"] == rows["ceiling"] != rows["positive"] == rows["negative"]
    assert all(size % 64 == 0 for size in rows.values())


def test_ceiling_and_mix_beat_the_base_on_a_few_problems(tokenizer):
    """The effect in small: 40 problems, two samples each; the shipped models are at about 35, 90 and 90 %."""
    questions = benchmark.test_questions()[::25]
    ids, mask = encode_prompts(tokenizer, [q.prompt for q in questions for _ in range(2)])
    golds = [q.answer for q in questions for _ in range(2)]
    models = {name: AutoModelForCausalLM.from_pretrained(MODELS / name).eval() for name in NAMES}

    def score(names, weights):
        generator = torch.Generator().manual_seed(0)
        new = sample([models[n] for n in names], weights, ids, mask, tokenizer.eos_token_id, generator)
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        return sum(rl.reward(text, gold) for text, gold in zip(texts, golds, strict=True)) / len(golds)

    base = score(["base"], [1.0])
    assert base < 0.6
    assert score(["base", "positive", "negative"], [1.0, 1.0, -1.0]) > base + 0.25
    assert score(["ceiling"], [1.0]) > base + 0.25
