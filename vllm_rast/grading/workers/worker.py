"""The worker: math-verify on one pair at a time, under limits that the kernel enforces.

It is run as a script and imports nothing of this package. It loads math-verify once and forks a child that does the
work: {"ready": pid} is what the child says first; then a line of JSON {"gold", "answer", "seconds"} comes in and one
{"correct"} or {"error"} goes out. The child may not grow beyond MEMORY, use more processor time than a pair is given,
write files or start processes. Whoever started the worker kills the child when a pair takes too long, and the next one
is there in milliseconds, with math-verify loaded.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys

MEMORY = 1 << 30  # bytes of address space; math-verify itself takes a quarter of it
CPU_SLACK = 2  # seconds on top of a pair's own
PAIRS = 1000  # then another child takes over: sympy's caches only grow
FLOAT_DIGITS = 10  # decimals agree if they do when rounded to so many places
NO_MORE, GO_ON = 0, 1  # exit codes of a child


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints is no answer
    logging.disable(logging.CRITICAL)
    _compare("x + 1", "1 + x")  # loads what is loaded at first use, before any clock runs
    while True:
        child = os.fork()
        if child == 0:
            os._exit(_serve(answers))
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == NO_MORE:
            return


def _serve(answers) -> int:
    _limit()
    _say(answers, {"ready": os.getpid()})
    for _ in range(PAIRS):
        line = sys.stdin.readline()
        if not line:
            return NO_MORE
        task = json.loads(line)
        _limit_cpu(task["seconds"])
        _say(answers, _reply(task["gold"], task["answer"]))
    return GO_ON


def _say(answers, message: dict) -> None:
    print(json.dumps(message), file=answers, flush=True)


def _reply(gold: str, answer: str) -> dict:
    try:
        return {"correct": _compare(gold, answer)}
    except MemoryError:
        return {"error": "out of memory"}
    except RecursionError:
        return {"error": "nested too deeply"}
    except Exception as error:  # sympy raises what it likes on odd input
        return {"error": type(error).__name__}


def _compare(gold: str, answer: str) -> bool:
    from math_verify import verify

    trees = _read(gold), _read(answer)
    if not all(trees):
        return False
    return bool(verify(*trees, float_rounding=FLOAT_DIGITS, timeout_seconds=None))


def _read(text: str) -> list:
    """math-verify's trees of an answer.

    As LaTeX only, whose grammar builds trees: plain expressions would go through sympy's parse_expr, which evaluates.
    """
    from math_verify import LatexExtractionConfig, parse

    for form in (f"\\boxed{{{text}}}", f"${text}$"):
        found = parse(
            form, extraction_config=(LatexExtractionConfig(),), fallback_mode="no_fallback", parsing_timeout=None
        )
        if found:
            return found
    return []


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _limit_cpu(seconds: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + CPU_SLACK
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
