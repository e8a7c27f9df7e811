"""Prompts that leave no room for an answer, found before any weights load."""

from __future__ import annotations

import json
from pathlib import Path

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.runs.plan import Plan
from vllm_rast.evaluation.runs.tokenizer import BaseTokenizer
from vllm_rast.mix.model_names import parse_model

TooLong = dict[str, dict[str, int]]  # benchmark: {problem: tokens of its prompt}


def too_long(plan: Plan, done: set[Key]) -> TooLong:
    """The problems whose prompts do not fit, of those that have samples to be made.

    Nothing is found if the base's tokenizer or its context is not known without loading it. Raises UserError, naming
    the remedies, unless the plan skips such problems.
    """
    longest = context_of(plan)
    if longest is None:
        return {}
    tokenizer = BaseTokenizer(plan)
    found: TooLong = {}
    for task in plan.tasks:
        chat = plan.template_of(task).text is None
        if chat and tokenizer.loaded is None:
            continue
        for problem in task.problems():
            if all(key in done for key in plan.keys_of(problem, plan.rows)):
                continue
            prompt, _ = plan.prompt_of(task, problem, tokenizer.loaded if chat else None)
            # A token is at least a byte: most prompts need not be cut into tokens to see that they fit.
            if len(prompt.encode("utf-8", "replace")) >= longest and (tokens := tokenizer.count(prompt)) >= longest:
                found.setdefault(task.name, {})[problem.id] = tokens
    if found and not plan.skip_too_long:
        benchmark, problems = next(iter(found.items()))
        ident, tokens = next(iter(problems.items()))
        number = sum(map(len, found.values()))
        raise UserError(
            f"--max-model-len {longest}: {number} prompts leave no room for an answer, the first is {benchmark} "
            f"{ident} with {tokens} tokens; raise the option, or leave such problems out with --skip-too-long"
        )
    return found


def context_of(plan: Plan) -> int | None:
    """Tokens that prompt and answer may have together: as the option says, or as the base's configuration does."""
    said = plan.engine.get("max_model_len")
    if isinstance(said, int) and said > 0:
        return said
    try:
        config = json.loads((Path(parse_model(plan.models.base, "model").path) / "config.json").read_text())
    except (OSError, ValueError):
        return None
    longest = config.get("max_position_embeddings")
    return longest if isinstance(longest, int) and not config.get("rope_scaling") else None
