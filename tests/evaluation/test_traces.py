"""A run's answers as ids again, and their traces on disk: resumed, interrupted, joined, never mixed up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from pyarrow import parquet
from traced import COLUMNS, FakeReader, TinyBackend, numbers_of

from vllm_rast.cli.main import main
from vllm_rast.errors import UserError
from vllm_rast.evaluation.analysis import reading as readings
from vllm_rast.evaluation.analysis.answers import alpha_of_row, chosen_samples, stored_answers
from vllm_rast.evaluation.analysis.reading import Reading, models_of_run, read_answers
from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs import traces as storage
from vllm_rast.evaluation.runs.folder import Key, RunFolder
from vllm_rast.evaluation.runs.traces import TraceFolder, parts_of, read_parts
from vllm_rast.mix.model_names import TINY_FOLDER

pytestmark = pytest.mark.skipif(not (TINY_FOLDER / "base").exists(), reason="the shipped models are not there")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three questions, two samples, rows of one model and rows that mix."""
    monkeypatch.setattr(backends, "open_backend", lambda plan: TinyBackend())
    options = ["--limit", "3", "--n", "2", "--rows", "base,rast,half=0.5"]
    assert main(["generate", "--run", str(tmp_path / "run"), *options]) == 0
    return tmp_path / "run"


def reading_of(run: Path, **options: object) -> Reading:
    return Reading(run=run, models=models_of_run(RunFolder(run).config), **options)  # type: ignore[arg-type]


def read(reading: Reading, at_most: int | None = None) -> tuple[Path, list[Key]]:
    """The traces' folder and the answers that had to be read."""
    reader = FakeReader(at_most)
    try:
        return read_answers(reading, lambda _: reader), [one.key for one in reader.given]
    except KeyboardInterrupt:
        (folder,) = (reading.run / storage.FOLDER).iterdir()
        return folder, [one.key for one in reader.given]


def test_texts_become_the_ids_that_were_decoded(run: Path) -> None:
    folder, tokenizer = RunFolder(run), TinyBackend().tokenizer
    samples = chosen_samples(folder, None, 2, 50)
    answers = list(stored_answers(folder, samples, models_of_run(folder.config), tokenizer))
    assert [one.key for one in answers] == [sample.key for sample in samples] and len(answers) == 18
    for sample, answer in zip(samples, answers, strict=True):
        ended = sample.finish_reason == "stop"
        assert answer.exact and len(answer.answer_ids) == sample.tokens
        assert (answer.answer_ids[-1] == tokenizer.eos_token_id) == ended
        assert tokenizer.decode(answer.answer_ids, skip_special_tokens=True) == sample.text
        assert tokenizer.decode(answer.prompt_ids).startswith("Question:\n")
        assert answer.alpha == {"base": None, "rast": 1.0, "half": 0.5}[sample.row]
    assert {one.answer_ids[-1] == tokenizer.eos_token_id for one in answers} == {True, False}
    assert alpha_of_row(folder, "base", models_of_run(folder.config), 2.0) == 2.0


def test_a_prompt_that_is_not_the_runs(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "problems.jsonl").read_text().splitlines()]
    lines[0]["question"] += " Why?"
    (run / "problems.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def never(reading: Reading) -> NoReturn:
        raise AssertionError("models were loaded")

    with pytest.raises(UserError, match="the prompt of tiny till-000 has .* tokens, not .* restore template"):
        read_answers(reading_of(run), never)


def test_an_input_file_with_whole_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "open_backend", lambda plan: TinyBackend())
    file, run = tmp_path / "mine.jsonl", tmp_path / "run"
    file.write_text('{"prompt": "Buying the abacus"}\n{"question": "Buying the abacus"}\n')
    assert main(["generate", "--run", str(run), "--input", str(file), "--n", "1", "--rows", "base"]) == 0
    folder, tokenizer = RunFolder(run), TinyBackend().tokenizer
    samples = chosen_samples(folder, None, 1, 9)
    answers = list(stored_answers(folder, samples, models_of_run(folder.config), tokenizer))
    prompts = [tokenizer.decode(one.prompt_ids) for one in answers]
    assert prompts[0] == "Buying the abacus" and prompts[1].startswith("Question:\nBuying the abacus\n")


def test_what_is_chosen(run: Path) -> None:
    folder = RunFolder(run)
    keys = [sample.key for sample in chosen_samples(folder, ["rast", "base"], 1, 2)]
    first = [problem.id for problem in folder.problems()][:2]
    assert keys == [Key("tiny", row, problem, 0) for row in ("rast", "base") for problem in first]
    with pytest.raises(UserError, match="--rows other: the run has no such row; its rows are base, rast, half"):
        chosen_samples(folder, ["other"], 1, 2)


def test_only_what_is_missing_is_read(run: Path) -> None:
    folder, first = read(reading_of(run, rows=["base"]))
    assert len(first) == 3
    assert read(reading_of(run, rows=["base"])) == (folder, [])
    _, more = read(reading_of(run, samples=2))
    assert len(more) == 18 - 3 and not set(more) & set(first)
    table = TraceTable.read(folder, [*first, *more])
    assert table.answers == [*first, *more]
    for i, key in enumerate(table.answers):
        inside = slice(table.starts[i], table.starts[i + 1])
        ids = table["token"][inside].tolist()
        assert table["position"][inside].tolist() == list(range(len(ids)))
        for column, values in zip(COLUMNS, numbers_of(ids).T, strict=True):
            np.testing.assert_array_equal(table[column][inside], values, err_msg=f"{key} {column}")
    assert table["mix_argmax"].dtype == np.int32 and table["js_mix_base"].dtype == np.float32
    assert table.text(int(table["token"][0])) == "The" and table.context(3) == "The answer is"


def test_interrupted_and_gone_on_with(run: Path) -> None:
    """Ctrl-C, or an error, loses nothing that was finished."""
    folder, first = read(reading_of(run, samples=2), at_most=7)
    assert len(first) == 7
    _, rest = read(reading_of(run, samples=2))
    assert len(rest) == 11 and not set(first) & set(rest)
    whole = TraceTable.read(folder, [*first, *rest])
    assert len(whole.answers) == 18


def test_killed_writers_leave_nothing_behind(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part is written whole under another name first; what is left of one that was not is swept away."""
    monkeypatch.setattr(storage, "FLUSH_S", 0)
    folder, _ = read(reading_of(run, rows=["base"]))
    (folder / ".part-000009.parquet.1").write_bytes(b"half a file")
    assert len(parts_of(folder)) == 3
    _, more = read(reading_of(run, rows=["base", "rast"]))
    assert len(more) == 3 and not list(folder.glob(".part-*"))


def test_many_parts_become_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FLUSH_S", 0)
    monkeypatch.setattr(storage, "MOST_PARTS", 8)
    folder, keys = read(reading_of(run, samples=2))
    assert len(parts_of(folder)) == 1
    assert read(reading_of(run, samples=2)) == (folder, [])
    # As after a crash between the joined part and the removal of the others: the first of two counts.
    twice = read_parts(folder)
    parquet.write_table(twice, folder / "part-000099.parquet")
    table = TraceTable.read(folder, keys)
    assert len(table) == twice.num_rows and table.answers == keys


def test_another_mix_or_ceiling_is_another_folder(run: Path) -> None:
    folder, keys = read(reading_of(run))
    other, again = read(reading_of(run, alpha=0.5))
    assert folder != other and keys == again
    config = json.loads((other / storage.CONFIG).read_text())
    assert config["alpha"] == 0.5 and config["models"]["base"] == "tiny:base" and config["ceiling"] is None
    ceiling = Reading(run=run, models=models_of_run(RunFolder(run).config, "tiny:ceiling"))
    assert read(ceiling)[0] not in (folder, other)
    # What only changes the speed does not change the numbers.
    assert read(reading_of(run, engine={"max_num_seqs": 3}))[1] == []


def test_the_ceiling_of_a_run(run: Path) -> None:
    config = RunFolder(run).config
    assert models_of_run(config).ceiling is None
    config["rows"]["ceiling"] = {"alpha": "positive:2", "formula": "tiny:ceiling"}
    assert models_of_run(config).ceiling == "tiny:ceiling"
    assert models_of_run(config, "tiny:negative").ceiling == "tiny:negative"


def test_two_writers(run: Path) -> None:
    config = reading_of(run).config(RunFolder(run).config)
    with TraceFolder(run, config, COLUMNS), pytest.raises(UserError, match="is writing this folder"):
        TraceFolder(run, config, COLUMNS)


def test_a_damaged_part(run: Path) -> None:
    folder, _ = read(reading_of(run))
    (folder / "part-000099.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="part-000099.parquet: damaged; delete this file"):
        read(reading_of(run))


def test_the_command(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reader = FakeReader()
    monkeypatch.setattr(readings, "open_reader", lambda reading: reader)
    command = ["analyze", str(run), "--samples", "2", "--rows", "base,rast"]
    assert main(command) == 0
    first = capsys.readouterr()
    assert "12 answers to read" in first.err and "what the mix does" in first.out and "what rast repairs" in first.out
    names = {path.name for path in (run / "analysis").iterdir()}
    stems = ["path_coverage", "sparsity", "moved_tokens", "entropy", "reasoning_words", "repairs"]
    wanted = {f"{stem}.{suffix}" for stem in stems for suffix in ("csv", "png", "svg")}
    assert names == wanted | {"analysis.md", "findings.json", "tokens.html"}
    pictures = {path: path.read_bytes() for path in (run / "analysis").iterdir()}
    assert main(command) == 0
    again = capsys.readouterr()
    assert again.out == first.out and "to read" not in again.err and len(reader.given) == 12
    assert all(path.read_bytes() == content for path, content in pictures.items()), "equal numbers, equal files"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "0"], "--samples 0: at least 1"),
        (["--problems", "0"], "--problems 0: at least 1"),
        (["--alpha", "much"], "--alpha much: expected a number, numbers joined by '/', base, positive"),
        (["--alpha", "1/2"], "--alpha 1/2: alpha: 2 values for 1 pairs"),
        (["--ceiling", "tiny:base"], "ceiling: tiny:base is the base itself"),
        (["--ceiling", "tiny:roof"], "no such shipped model"),
        (["--words", "/no/file"], "--words /no/file: No such file"),
        (["--smaples", "2"], "unknown option --smaples; did you mean --samples?"),
    ],
)
def test_bad_options_are_one_line(
    run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["analyze", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.engine
def test_with_the_shipped_models(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way once, with an engine: the mix of alpha 0 is the base."""
    pytest.importorskip("vllm")
    command = ["analyze", str(run), "--rows", "base", "--problems", "2", "--alpha", "0", "--ceiling", "tiny:ceiling"]
    assert main(command) == 0
    assert "2 answers to read" in capsys.readouterr().err
    (folder,) = (run / storage.FOLDER).iterdir()
    table = read_parts(folder).to_pydict()
    assert table["mix_logprob"] == table["base_logprob"] and set(table["kl_mix_base"]) == {0}
    assert all(value < 0 for value in table["ceiling_logprob"]) and max(table["js_ceiling_base"]) > 0
    assert "similarity.csv" in {path.name for path in (run / "analysis").iterdir()}
