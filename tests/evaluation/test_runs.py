"""The run folder: what it keeps, what it refuses, and what it survives."""

from __future__ import annotations

import copy
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ROOT
from run_samples import CONFIG, sample

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs import jsonl as lines
from vllm_rast.evaluation.runs.folder import Key, RunFolder, config_hash
from vllm_rast.evaluation.runs.jsonl import LineFile, RunError, read_lines
from vllm_rast.evaluation.tasks.benchmark import Problem


def changed(*path: str, to: object) -> dict:
    config = copy.deepcopy(CONFIG)
    place = config
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    return config


def filled(path: Path, count: int = 3) -> Path:
    with RunFolder.open(path, CONFIG) as folder:
        for number in range(count):
            folder.append(sample(number))
    return path


def test_samples_come_back_as_they_were_written(tmp_path):
    texts = ["", "two\nlines\r\n", "\u2028 \x85 ß 数 \x00", 'quote " and \\boxed{1}', "half a \ud800 pair"]
    with RunFolder.open(tmp_path / "new" / "run", CONFIG) as folder:
        for number, text in enumerate(texts):
            folder.append(sample(number, text))
        in_file = (tmp_path / "new" / "run" / "samples.jsonl").read_bytes()
    assert in_file.count(b"\n") == len(texts)  # every line was on its way to the disk before close
    read = list(RunFolder(tmp_path / "new" / "run").samples())
    assert [one.text for one in read[:-1]] == texts[:-1]
    assert read[0] == sample(0, "")
    assert "pair" in read[-1].text


def test_a_key_that_occurs_twice_counts_once(tmp_path):
    run = filled(tmp_path, 2)
    with RunFolder.open(run, CONFIG) as folder:
        folder.append(sample(1, "again"))
    read = list(RunFolder(run).samples())
    assert [(one.sample, one.text) for one in read] == [(0, "t"), (1, "t")]
    assert RunFolder(run).done() == {Key("maths", "base", "p", 0), Key("maths", "base", "p", 1)}


@pytest.mark.parametrize("tail", [b'{"benchmark": "maths", "te', b"\x00" * 700, b"\x00" * 70 + b"\n", b"{}\n{}"])
def test_a_half_written_last_line_is_dropped_and_said(tmp_path, capsys, tail):
    run = filled(tmp_path)
    whole = (run / "samples.jsonl").read_bytes()
    tail = tail.replace(b"{}\n", b"")
    with open(run / "samples.jsonl", "ab") as file:
        file.write(tail)
    assert len(list(RunFolder(run).samples())) == 3  # a reader leaves it alone
    assert (run / "samples.jsonl").read_bytes() == whole + tail
    with RunFolder.open(run, CONFIG) as folder:
        assert f"dropped a half-written last line ({len(tail)} bytes)" in capsys.readouterr().err
        folder.append(sample(3))
    assert [one.sample for one in RunFolder(run).samples()] == [0, 1, 2, 3]


def test_a_half_line_is_found_in_a_file_of_one_long_line(tmp_path):
    path = tmp_path / "lines.jsonl"
    long = json.dumps({"text": "x" * 300_000}).encode()
    for content, keep in ((long, 0), (long + b"\n", len(long) + 1), (long + b"\n" + long, len(long) + 1), (b"\n", 0)):
        path.write_bytes(content)
        LineFile(path).close()
        assert path.stat().st_size == keep


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    run = filled(tmp_path)
    good = (run / "samples.jsonl").read_text().splitlines()
    (run / "samples.jsonl").write_text("\n".join([good[0], good[1][:-5], good[2]]) + "\n")
    with pytest.raises(UserError, match="line 2 is damaged; delete this line"):
        list(RunFolder(run).samples())


def test_samples_of_other_settings_are_refused(tmp_path):
    run = filled(tmp_path)
    with open(run / "samples.jsonl", "a") as file:
        line = json.loads((run / "samples.jsonl").read_text().splitlines()[0])
        file.write(json.dumps(line | {"config_hash": "0123", "sample": 7}) + "\n")
    with pytest.raises(UserError, match="line 4 was made with other settings"):
        list(RunFolder(run).samples())


@pytest.mark.parametrize(
    "path, to, said",
    [
        (("seed",), 1, "--seed changed, 0 → 1"),
        (("template",), "chat", "--template changed, 'paper' → 'chat'"),
        (("template_hash",), "u", "the text of --template changed"),
        (("backend",), "transformers", "--backend changed"),
        (("weights", "A"), "2", "the weights of A changed, '1' → '2'"),
        (("engine", "dtype"), "bfloat16", "--dtype changed, 'float32' → 'bfloat16'"),
        (("engine", "max_model_len"), 512, "--max-model-len changed, None → 512"),
        (("rows", "rast", "alpha"), 0.5, r"alpha of row 'rast' changed, 1.0 → 0.5; .*--rows NAME=0.5"),
        (("rows", "rast", "temperature"), 0.5, "temperature of row 'rast' changed, None → 0.5"),
        (("rows", "rast", "formula"), "B + 1.0 * (P - N)", r"formula of row 'rast' changed, 'A \+ .* → 'B \+ "),
        (("benchmarks", "maths", "temperature"), 0.2, r"--temperature \(maths\) changed, 1.0 → 0.2"),
        (("benchmarks", "maths", "max_tokens"), 9, r"--max-tokens \(maths\) changed, 8 → 9"),
        (("benchmarks", "maths", "data_hash"), "2", r"the data of benchmark 'maths' \(m.jsonl\) changed, '1' → '2'"),
    ],
)
def test_a_changed_option_is_refused_by_name(tmp_path, path, to, said):
    run = filled(tmp_path)
    before = (run / "config.json").read_bytes(), (run / "samples.jsonl").read_bytes()
    with pytest.raises(UserError, match=said) as error:
        RunFolder.open(run, changed(*path, to=to))
    assert "another folder with --run" in str(error.value)
    assert "\n" not in str(error.value)
    assert ((run / "config.json").read_bytes(), (run / "samples.jsonl").read_bytes()) == before
    RunFolder.open(run, CONFIG).close()  # the lock is free again


def test_more_of_the_same_may_be_asked(tmp_path):
    run = filled(tmp_path)
    config = changed("sampling", "n", to=8)
    config["rows"] = {"half": {"alpha": 0.5, "formula": "A + 0.5 * (P - N)"}}
    config["benchmarks"]["maths"]["limit"] = None
    config["benchmarks"]["more"] = config["benchmarks"]["maths"] | {"data_hash": "3", "limit": 4}
    config["weights"] = {"B": "2"}
    config["engine"] = {"dtype": "float32", "max_num_seqs": 8, "tensor_parallel_size": 2}
    RunFolder.open(run, config).close()
    merged = RunFolder(run).config
    assert list(merged["rows"]) == ["base", "rast", "half"]
    assert merged["benchmarks"]["maths"]["limit"] is None
    assert merged["benchmarks"]["more"]["limit"] == 4
    assert merged["sampling"]["n"] == 8
    assert merged["weights"] == {"A": "1", "B": "2"}
    assert merged["config_hash"] == config_hash(CONFIG)
    RunFolder.open(run, CONFIG).close()  # less than before: nothing is forgotten
    assert RunFolder(run).config == merged
    assert RunFolder(run).done() == {Key("maths", "base", "p", number) for number in range(3)}


def test_without_samples_any_option_may_change(tmp_path):
    RunFolder.open(tmp_path, CONFIG).close()
    RunFolder.open(tmp_path, changed("seed", to=5)).close()
    assert RunFolder(tmp_path).config["seed"] == 5
    assert RunFolder(tmp_path).config["config_hash"] != config_hash(CONFIG)


def test_resuming_can_be_forbidden(tmp_path):
    RunFolder.open(tmp_path, CONFIG, resume=False).close()
    filled(tmp_path)
    with pytest.raises(UserError, match="already holds samples"):
        RunFolder.open(tmp_path, CONFIG, resume=False)


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/none is not a run folder"):
        RunFolder(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a run folder"):
        RunFolder(tmp_path / "file")
    with pytest.raises(UserError, match=f"--run {tmp_path}/file"):
        RunFolder.open(tmp_path / "file", CONFIG)
    filled(tmp_path / "lost")
    (tmp_path / "lost" / "config.json").unlink()
    with pytest.raises(UserError, match="no config.json; name another folder"):
        RunFolder.open(tmp_path / "lost", CONFIG)


def test_problems_are_kept_with_their_golds(tmp_path):
    first = Problem("maths", "a", "1 + 1?", "2", family="easy")
    second = Problem("maths", "b", "roots?", ("1", "-1"))
    with RunFolder.open(tmp_path, CONFIG) as folder:
        folder.add_problems([first])
        folder.add_problems([Problem("maths", "a", "another question", "3"), second])
    assert list(RunFolder(tmp_path).problems()) == [first, second]


def test_sittings_are_recorded(tmp_path):
    for device in ("CPU", "GPU"):
        with RunFolder.open(tmp_path, CONFIG) as folder:
            folder.add_sitting({"device": device, "versions": {"vllm": device}})
            folder.append(sample(len(device)))
    config = RunFolder(tmp_path).config
    assert [sitting["device"] for sitting in config["sittings"]] == ["CPU", "GPU"]
    assert config["device"] == "CPU"


def test_two_writers(tmp_path):
    with RunFolder.open(tmp_path, CONFIG):
        with pytest.raises(UserError, match=f"process {os.getpid()} on .* is writing this folder"):
            RunFolder.open(tmp_path, CONFIG)
        assert list(RunFolder(tmp_path).samples()) == []  # readers are welcome
    RunFolder.open(tmp_path, CONFIG).close()


HOLD = """
import multiprocessing, os, sys, time
sys.path.insert(0, {tests!r})
from run_samples import CONFIG, sample
from vllm_rast.evaluation.runs.folder import RunFolder
folder = RunFolder.open(sys.argv[1], CONFIG)
folder.append(sample(0))

def work():
    print(os.getpid(), flush=True)  # not before it has left its parent's lock
    time.sleep(60)

multiprocessing.get_context("fork").Process(target=work).start()
time.sleep(60)
"""


def test_the_lock_ends_with_its_holder_though_a_worker_lives_on(tmp_path):
    script = HOLD.format(tests=str(ROOT / "tests" / "helpers"))
    holder = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        worker = int(holder.stdout.readline())
        with pytest.raises(UserError, match=f"process {holder.pid} on"):
            RunFolder.open(tmp_path, CONFIG)
        holder.kill()
        holder.wait()
        os.kill(worker, 0)  # it is still there
        RunFolder.open(tmp_path, CONFIG).close()
    finally:
        holder.kill()
        os.kill(worker, signal.SIGKILL)
        holder.stdout.close()
    assert len(list(RunFolder(tmp_path).samples())) == 1


APPEND = """
import sys
sys.path.insert(0, {tests!r})
from run_samples import CONFIG, sample
from vllm_rast.evaluation.runs.folder import RunFolder

with RunFolder.open(sys.argv[1], CONFIG) as folder:
    for number in range(1_000_000):
        folder.append(sample(number, "x" * (number % 5000)))
"""


def test_a_reader_never_sees_part_of_a_line(tmp_path):
    script = APPEND.format(tests=str(ROOT / "tests" / "helpers"))
    writer = subprocess.Popen([sys.executable, "-c", script, tmp_path])
    try:
        counts = [0]
        while len(set(counts)) < 10:
            numbers = [record["sample"] for _, record in read_lines(tmp_path / "samples.jsonl")]
            assert numbers == list(range(len(numbers)))
            counts.append(len(numbers))
            assert writer.poll() is None
            time.sleep(0.01)
    finally:
        writer.kill()
        writer.wait()
    assert len(RunFolder(tmp_path).done()) >= counts[-1]


@pytest.mark.parametrize(
    "number, said", [(errno.ENOSPC, "No space left.*; free some space"), (errno.EIO, "Input/output")]
)
def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch, number, said):
    """The disk fills in the middle of a line: the line goes, everything before stays."""
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(number, os.strerror(number))
        return real(fd, data[:100])

    with RunFolder.open(tmp_path, CONFIG) as folder:
        folder.append(sample(0))
        monkeypatch.setattr(lines.os, "write", write)
        with pytest.raises(RunError, match=said):
            folder.append(sample(1, "y" * 250))
        monkeypatch.undo()
        assert len(list(folder.samples())) == 1
        folder.append(sample(1, "z"))  # there is space again
    assert [one.text for one in RunFolder(tmp_path).samples()] == ["t", "z"]


def test_a_full_disk_keeps_the_old_config(tmp_path, monkeypatch):
    run = filled(tmp_path)
    before = (run / "config.json").read_bytes()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lines.os, "fsync", full)
    with pytest.raises(RunError, match="config.json: No space left on device"):
        RunFolder.open(run, changed("sampling", "n", to=8))
    assert (run / "config.json").read_bytes() == before
    assert sorted(path.name for path in run.iterdir() if ".lock" not in path.name) == ["config.json", "samples.jsonl"]
