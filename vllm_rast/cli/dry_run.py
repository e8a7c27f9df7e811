"""What `--dry-run` prints: the plan, what of it is there already, and the first prompt."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from vllm_rast.evaluation.runs.folder import CONFIG, RunFolder, merge
from vllm_rast.evaluation.runs.plan import Plan, Task
from vllm_rast.evaluation.tasks.rows import formula
from vllm_rast.mix.adapter import find_config, read_config
from vllm_rast.mix.speculation import describe_drafts


def describe(plan: Plan, run: str | None) -> str:
    """The plan as text. Reads nothing from the network; raises UserError if the run folder does not fit it."""
    there = samples_there(plan, run)
    lines = [f"run        {run or '(none named)'}: {sum(there.values()):,} samples there"]
    lines += [f"models     base {plan.models.base}"]
    lines += [f"pair {number:<6} {pair.formula(f'{pair.alpha:g}')}" for number, pair in enumerate(plan.models.pairs, 1)]
    lines += describe_adapters(plan)
    engine = ", ".join(f"{name}={value}" for name, value in plan.config_engine().items())
    if plan.models.speculate:
        lines.append(f"drafts     {describe_drafts(plan.models)}")
    lines += [f"backend    {plan.backend}{f': {engine}' if engine else ''}"]
    lines += [f"prompts    template {plan.template.name}, seed {plan.seed}, n {plan.n}"]
    lines += [
        f"row        {row.name} = {formula(plan.models, row.alpha)}{temperature(row.temperature)}" for row in plan.rows
    ]
    for task in plan.tasks:
        lines += describe_task(plan, task, there)
    for first in [task for task in plan.tasks if not task.remote][:1]:
        lines += ["", f"first prompt ({first.name}):", first_prompt(plan, first)]
    return "\n".join(lines)


def describe_adapters(plan: Plan) -> list[str]:
    """One line for each adapter, if its configuration is here."""
    lines = []
    for source in plan.models.sources:
        if source.adapter is not None:
            file = find_config(source.adapter.path, source.adapter.revision)
            config = read_config(file, "model", source.adapter.name) if file else None
            kind = f"{config.kind}, rank {config.rank}" if config else "not downloaded yet"
            lines.append(f"adapter    {source.adapter.name}: {kind}, merged into {replace(source, adapter=None).name}")
    return lines


def describe_task(plan: Plan, task: Task, there: Counter[tuple[str, str]]) -> list[str]:
    sampling = task.sampling
    count = task.count()
    where = f"would be loaded from {task.benchmark.source}" if task.remote else task.benchmark.source
    lines = [
        f"benchmark  {task.name}: {'?' if count is None else f'{count:,}'} problems ({where}), temperature "
        f"{sampling.temperature:g}, top_p {sampling.top_p:g}, max_tokens {sampling.max_tokens}"
    ]
    for row in plan.rows:
        have = there[task.name, row.name]
        need = "?" if count is None else f"{count * plan.n - have:,}"
        lines.append(f"           {row.name}: {need} samples to make, {have:,} there")
    return lines


def temperature(value: float | None) -> str:
    return "" if value is None else f" at temperature {value:g}"


def samples_there(plan: Plan, run: str | None) -> Counter[tuple[str, str]]:
    """Finished samples of this plan by (benchmark, row)."""
    there: Counter[tuple[str, str]] = Counter()
    if run is None or not (Path(run) / CONFIG).exists():
        return there
    folder = RunFolder(run)
    if not any(task.remote for task in plan.tasks):
        merge(folder.config, plan.config(), run)
    wanted = {task.name: None if task.remote else {p.id for p in task.problems()} for task in plan.tasks}
    rows = {row.name for row in plan.rows}
    for sample in folder.samples():
        problems = wanted.get(sample.benchmark, set())
        if sample.row in rows and sample.sample < plan.n and (problems is None or sample.problem in problems):
            there[sample.benchmark, sample.row] += 1
    return there


def first_prompt(plan: Plan, task: Task) -> str:
    problem = task.problems()[0]
    if problem.id in task.verbatim:
        return problem.question
    template = plan.template_of(task)
    if template.text is None:
        return f"(the chat template of {plan.models.base}, known once the tokenizer is loaded)\n{problem.question}"
    return template.render(problem.question)
