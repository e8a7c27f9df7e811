"""The report's files say what the evaluation says, and nothing in a model's output can break out of the page."""

from __future__ import annotations

import argparse
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chromium import chromium
from stub_grader import StubGrader, stub_grader
from synthetic import write_run

from vllm_rast.cli import report as command
from vllm_rast.errors import UserError
from vllm_rast.evaluation.reports import against_paper, paper, plots, report, tables
from vllm_rast.evaluation.reports import page as pages
from vllm_rast.evaluation.reports.findings import FILE, Found, findings_text
from vllm_rast.evaluation.reports.tables import Table
from vllm_rast.evaluation.scores.evaluate import Evaluation, evaluate_runs
from vllm_rast.evaluation.scores.intervals import Interval
from vllm_rast.evaluation.scores.metric import MAJ_AT_K, METRICS, PASS_AT_K, of_counts
from vllm_rast.evaluation.scores.metrics import pass_hat_k
from vllm_rast.evaluation.scores.summary import Score, curve_ks, table_ks

__all__ = ["stub_grader"]

HOSTILE = "</script><script>alert(1)</script><!-- <script> ]]> \u2028 \\u003c & \"'` \x00 🤔 \\boxed{2}"


def make_report(*args: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers())
    parsed = parser.parse_args(["report", *map(str, args)])
    return parsed.func(parsed)


@pytest.fixture
def run(tmp_path: Path, stub_grader: StubGrader) -> Path:
    return write_run(tmp_path / "demo", questions=5, n=3)


@pytest.fixture
def evaluation(run: Path) -> Evaluation:
    return evaluate_runs([run])


class Scripts(HTMLParser):
    """Collects a page's script elements and every address it would load."""

    def __init__(self, html: str):
        super().__init__()
        self.scripts: list[tuple[dict, str]] = []
        self.loaded: list[str] = []
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append((dict(attrs), ""))
        self.loaded += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]

    def handle_data(self, data):
        if self.inside:
            attributes, text = self.scripts.pop()
            self.scripts.append((attributes, text + data))

    def handle_endtag(self, tag):
        self.inside = False


def data_of(html: str) -> dict:
    scripts = Scripts(html).scripts
    assert [attributes.get("type") for attributes, _ in scripts] == ["application/json", None]
    return json.loads(scripts[0][1])


def test_report_writes_every_file_and_prints_the_table(run, capsys):
    assert make_report(run) == 0
    out, err = capsys.readouterr()
    assert "recovery rate of rast" in out
    for name in (
        "report.md",
        "report.json",
        "report.html",
        "pass_at_k.png",
        "pass_at_k.svg",
        "maj_at_k.png",
        "maj_at_k.svg",
    ):
        assert (run / name).stat().st_size > 500 and name in err
    assert json.loads((run / "report.json").read_text())["rows"].keys() == {"base", "positive", "rast", "ceiling"}


def test_report_of_several_runs_needs_a_place(tmp_path, run, capsys):
    other = write_run(tmp_path / "other", questions=5, n=3, seed=1)
    with pytest.raises(UserError, match="--out"):
        make_report(run, other)
    assert make_report(run, other, "--out", tmp_path / "both") == 0
    assert "demo:rast" in (tmp_path / "both" / "report.md").read_text()
    assert not (run / "report.md").exists()


def test_report_to_a_place_that_cannot_be_is_a_usage_error(tmp_path, run):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out .*file"):
        make_report(run, "--out", tmp_path / "file" / "folder")


def test_markdown_tables_are_tables_and_agree_with_the_numbers(evaluation):
    text = report.markdown_report(evaluation)
    rows = [line for line in text.splitlines() if line.startswith("| rast ")]
    row = evaluation.pooled.rows["rast"]
    assert tables.with_interval(row.avg) in rows[0] and f"{100 * row.avg.value:.1f}" in rows[0]
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    assert "![pass@k](pass_at_k.png)" in text


def test_an_interval_at_the_edge_shows_its_only_side():
    assert tables.with_interval(Score(1.0, Interval(0.9, 1.0), None)) == "100.0 ± 10.0"
    assert tables.with_interval(Score(0.5, Interval(0.45, 0.55), None)) == "50.0 ± 5.0"
    assert tables.with_interval(Score(0.5, None, None)) == "50.0"


def test_a_bar_in_a_name_does_not_break_a_markdown_table():
    lines = tables.markdown(tables.Table("t", ["row", "x|y"], [["a|b", "1"]])).splitlines()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [3, 3, 3]


def test_page_holds_every_sample_and_how_it_was_marked(evaluation):
    data = data_of(pages.page(evaluation))
    columns = data["samples"]
    assert len(data["problems"]) == 5 and data["starts"] == [0, 12, 24, 36, 48, 60]
    assert {len(column) for column in columns.values()} == {60}
    seen = set()
    for problem in range(5):
        for i in range(data["starts"][problem], data["starts"][problem + 1]):
            seen.add((data["problems"][problem][1], data["rows"][columns["row"][i]], columns["number"][i],
                      bool(columns["correct"][i]), columns["answer"][i], columns["text"][i]))  # fmt: skip
    assert seen == {(s.problem, s.row, s.sample, s.correct, s.answer, s.text) for s in evaluation.samples}
    assert {data["hows"][how] for how in columns["how"]} == {s.how for s in evaluation.samples}


def test_page_loads_nothing_and_forbids_loading(evaluation):
    html = pages.page(evaluation)
    assert Scripts(html).loaded == []
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", html)


def test_hostile_output_is_only_text(tmp_path, stub_grader):
    run = write_run(tmp_path / "</title><script>alert(2)</script>", questions=2, n=1, skills={"<b>row</b>": 1.0})
    problems = (run / "problems.jsonl").read_text().replace("What is", "</script><img src=x onerror=alert(3)>")
    (run / "problems.jsonl").write_text(problems)
    lines = [
        json.loads(line) | {"text": HOSTILE + "\ud800"} for line in (run / "samples.jsonl").read_text().splitlines()
    ]
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = pages.page(evaluate_runs([run]))
    data = data_of(html)
    assert data["samples"]["text"] == [HOSTILE + "\ud800"] * 2
    assert Scripts(html).loaded == []
    assert "<b>row" not in html and "<img" not in html
    html.encode("utf-8")


TOKENS = """<!DOCTYPE html>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'">
<p id="inside">nothing</p><script>document.getElementById("inside").textContent = "decoded </script"</script>"""


def test_the_page_of_tokens_is_a_section_of_the_report(run, evaluation):
    assert 'id="tokens"' not in pages.page(evaluation)
    (run / "analysis").mkdir()
    (run / "analysis" / "tokens.html").write_text(TOKENS)
    assert make_report(run) == 0
    html = (run / "report.html").read_text()
    assert Scripts(html).loaded == [] and len(Scripts(html).scripts) == 3


def test_the_analyses_are_a_section_of_the_report(run, evaluation, capsys):
    assert 'id="analysis"' not in pages.page(evaluation)
    (run / "analysis").mkdir()
    first, second = Table("the <most> important", ["row", "a"], [["<b>", "1 %"]]), Table("second", ["row"], [["x"]])
    (run / "analysis" / FILE).write_text(findings_text([Found(first), Found(second, "second")]))
    (run / "analysis" / "second.png").write_bytes(b"a picture")
    assert make_report(run) == 0
    html = (run / "report.html").read_text()
    assert html.count("&lt;b&gt;") == 1 and "<b>" not in html and 'id="analysis"' in html
    assert Scripts(html).loaded == ["data:image/png;base64,YSBwaWN0dXJl"] and "img-src data:" in html
    text = (run / "report.md").read_text()
    assert "demo: the <most> important" in text and "| <b> | 1 % |" in text and "second" not in text
    (run / "analysis" / "second.png").unlink()
    assert Scripts(pages.page(evaluation)).loaded == []
    (run / "analysis" / FILE).write_text('[{"title": 3}]')
    with pytest.raises(UserError, match=rf"{FILE}: damaged; run `vllm-rast analyze` again"):
        make_report(run)


@pytest.fixture(scope="module")
def browser():
    with chromium(pytest.importorskip("playwright.sync_api", reason="needs playwright")) as browser:
        yield browser


def test_the_page_of_tokens_opens_in_the_report(evaluation, tmp_path, browser):
    (tmp_path / "report.html").write_text(pages.page(evaluation, TOKENS))
    page = browser.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator("iframe").count() == 0, "it is laid out when it is asked for"
    page.locator("#tokens summary").click()
    inside = page.frame_locator("iframe").locator("#inside")
    inside.wait_for()
    assert inside.text_content() == "decoded </script"
    page.close()
    assert not complaints


def test_long_outputs_keep_their_ends_where_the_page_would_grow_too_large(evaluation, monkeypatch):
    long = "start " + "x" * 50_000 + " \\boxed{7}"
    short = pages.shortened(long)
    assert short.startswith("start") and short.endswith("\\boxed{7}") and len(short) < 2_200
    assert f"{len(long) - 2000} characters left out" in short
    assert pages.shortened("y" * 2050) == "y" * 2050
    monkeypatch.setattr(pages, "MAX_TEXT", 10)
    assert "left out" not in pages.page(evaluation)  # short texts stay whole even then


def test_page_shows_only_problems_with_samples(tmp_path, stub_grader):
    run = write_run(tmp_path / "demo", questions=6, n=2)
    lines = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    (run / "samples.jsonl").write_text("".join(line for line in lines if '"q2"' not in line))
    data = data_of(pages.page(evaluate_runs([run])))
    assert [problem[1] for problem in data["problems"]] == ["q0", "q1", "q3", "q4", "q5"]
    assert data["starts"][-1] == len(data["samples"]["text"]) == 5 * 4 * 2


def test_curves_are_the_scores(evaluation):
    points = pages.curves(evaluation.pooled)["maj@k"]["rast"]
    row = evaluation.pooled.rows["rast"]
    assert [k for k, *_ in points] == [1, 2, 3]
    for k, value, low, high in points:
        score = row.score(MAJ_AT_K, int(k))
        assert (value, low, high) == pytest.approx((score.value, *score.ci), abs=1e-5)


def test_plots_draw_every_row_in_every_panel(tmp_path, stub_grader):
    rows = {"base": 0.3, "rast": 0.7, "alpha=0.5": 0.5, "alpha=2": 0.6}
    run = write_run(tmp_path / "two", questions=4, n=3, benchmarks=("first", "second"), skills=rows)
    evaluation = evaluate_runs([run])
    figure = plots.draw(evaluation.benchmarks, PASS_AT_K, "two")
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert len(axes.lines) == 4 and len(axes.collections) == 4
        assert {text.get_text().rsplit(" ", 1)[0] for text in axes.texts} == set(rows)
        for line, row in zip(axes.lines, evaluation.pooled.rows, strict=True):
            assert line.get_color() == plots.row_styles(evaluation.benchmarks)[row][0]
    assert len({style for style in plots.row_styles(evaluation.benchmarks).values()}) == 4


def test_plots_are_the_same_files_for_the_same_numbers(evaluation, tmp_path):
    paths = plots.write_curves(evaluation.benchmarks, tmp_path, "demo")
    first = {path: path.read_bytes() for path in paths}
    plots.write_curves(evaluation.benchmarks, tmp_path, "demo")
    assert {path: path.read_bytes() for path in paths} == first
    for path in paths:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_labels_are_moved_apart_as_little_as_possible():
    assert plots.spread([1, 5, 9], 2) == [1, 5, 9]
    assert plots.spread([5, 5], 2) == [4, 6]
    assert plots.spread([0, 5, 5.5, 6, 20], 1) == [0, 4.5, 5.5, 6.5, 20]


def test_ks_of_tables_and_curves():
    assert table_ks(1) == [1] and table_ks(8) == [1, 2, 4, 8] and table_ks(10) == [1, 2, 4, 8, 10]
    assert curve_ks(5) == [1, 2, 3, 4, 5]
    many = curve_ks(1000)
    assert many[0] == 1 and many[-1] == 1000 and 50 < len(many) < 80 and many == sorted(set(many))


def test_the_paper_s_stated_averages_come_out_of_its_table():
    for row in paper.TABLE:
        mean = paper.averaged_recovery_rate(row)
        assert (mean is None) == (not row.is_mix)
        if row.name in paper.STATED_AVERAGES:
            assert round(mean, 1) == paper.STATED_AVERAGES[row.name]


def test_odd_cells_of_the_paper_are_marked():
    odd = paper.oddities()
    assert set(odd) == {
        ("7B alone", "math500"), ("32B alone", "olympiadbench"), ("14B + 7B", "aime24"), ("32B + 14B", "minerva"),
    }  # fmt: skip
    assert "123.4 %" in odd["14B + 7B", "aime24"] and "500 questions" in odd["7B alone", "math500"]


@pytest.mark.parametrize(
    ("score", "questions", "possible"), [(68.6, 500, True), (62.9, 500, False), (3.3, 30, True), (91.4, 1319, True)]
)
def test_scores_a_single_run_can_have(score, questions, possible):
    assert paper.on_grid(score, questions) == possible


@pytest.mark.parametrize(
    ("formula", "name"),
    [
        ("Qwen/Qwen2.5-32B", "32B alone"),
        ("hkust-nlp/Qwen-2.5-14B-SimpleRL-Zoo", "14B RL"),
        ("Qwen/Qwen2.5-14B@abc + 0.5 * (hkust-nlp/Qwen-2.5-1.5B-SimpleRL-Zoo@def - Qwen/Qwen2.5-1.5B)", "14B + 1.5B"),
        ("/models/Qwen2.5-32B + 1.0 * (/models/Qwen-2.5-14B-SimpleRL-Zoo - /models/Qwen2.5-14B)", "32B + 14B"),
        ("Qwen/Qwen2.5-32B + 1.0 * (hkust-nlp/Qwen-2.5-14B-SimpleRL-Zoo - Qwen/Qwen2.5-7B)", None),
        ("Qwen/Qwen2.5-32B-Instruct", None),
        ("tiny:base", None),
    ],
)  # fmt: skip
def test_our_rows_are_matched_to_the_paper_s_by_their_models(formula, name):
    row = paper.match(formula)
    assert (row.name if row else None) == name


def test_our_rows_stand_below_the_paper_s(tmp_path, stub_grader):
    run = write_run(tmp_path / "demo", questions=4, n=2, benchmarks=("math500", "aime24"))
    config = json.loads((run / "config.json").read_text())
    mix = "Qwen/Qwen2.5-7B + 1.0 * (hkust-nlp/Qwen-2.5-1.5B-SimpleRL-Zoo - Qwen/Qwen2.5-1.5B)"
    config["rows"]["rast"]["formula"] = mix
    (run / "config.json").write_text(json.dumps(config))
    evaluation = evaluate_runs([run])
    table, notes = against_paper.paper_table(evaluation)
    names = [row[0].strip() for row in table.rows]
    assert names.index("ours: rast") == names.index("7B + 1.5B") + 1
    ours = table.rows[names.index("ours: rast")]
    assert ours[1].startswith(tables.with_interval(evaluation.benchmarks["math500"].rows["rast"].avg))
    assert ours[3] == "" and ours[-1] == "" and not any("stands alone" in note for note in notes)


@pytest.fixture
def new_metric():
    """One entry of METRICS: the chance that k samples are all right, under another name."""
    METRICS.append(of_counts("sure_at_k", "sure@k", pass_hat_k))
    yield METRICS[-1]
    METRICS.pop()


def test_a_new_metric_shows_everywhere(evaluation, new_metric, tmp_path):
    k = min(row.n for row in evaluation.pooled.rows.values())
    assert all(f"sure@{k}" in table.columns for table in report.tables(evaluation))
    assert "![sure@k](sure_at_k.png)" in report.markdown_report(evaluation)
    assert set(pages.curves(evaluation.pooled)) == {"pass@k", "maj@k", "sure@k"}
    assert "sure_at_k.svg" in {path.name for path in plots.write_curves(evaluation.benchmarks, tmp_path, "t")}
    assert "sure_at_k_ci" in report.to_json(evaluation)["rows"]["rast"]
