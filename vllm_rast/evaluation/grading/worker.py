"""The worker process: math-verify on one pair at a time, under limits that the kernel enforces.

It is run as a script and imports nothing of this package. A line of JSON {"gold", "answer", "seconds"} comes in, one
{"correct"} or {"error"} goes out. It may not grow beyond MEMORY, use more processor time than it is given, write files
or start processes; whoever started it kills it when a pair takes too long.
"""

from __future__ import annotations

import json
import resource
import sys

MEMORY = 1 << 30  # bytes of address space; math-verify itself takes a quarter of it
FLOAT_DIGITS = 10  # decimals agree if they do when rounded to so many places
CPU_SLACK = 2  # seconds on top of a pair's own


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints is no answer
    import logging

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    # LaTeX only: its grammar builds trees. Plain expressions would go through sympy's parse_expr, which evaluates.
    latex = (LatexExtractionConfig(),)

    def read(text: str) -> list:
        for form in (f"\\boxed{{{text}}}", f"${text}$"):
            found = parse(form, extraction_config=latex, fallback_mode="no_fallback", parsing_timeout=None)
            if found:
                return found
        return []

    verify(read("x + 1"), read("1 + x"))  # loads what is loaded at first use, before the clock runs
    _limit()
    for line in _tasks(answers):
        task = json.loads(line)
        _limit_cpu(task["seconds"])
        reply: dict[str, bool | str]
        try:
            gold, answer = read(task["gold"]), read(task["answer"])
            reply = {
                "correct": bool(
                    gold and answer and verify(gold, answer, float_rounding=FLOAT_DIGITS, timeout_seconds=None)
                )
            }
        except MemoryError:
            reply = {"error": "out of memory"}
        except RecursionError:
            reply = {"error": "nested too deeply"}
        except Exception as error:  # sympy raises what it likes on odd input
            reply = {"error": type(error).__name__}
        print(json.dumps(reply), file=answers, flush=True)


def _tasks(answers):
    print(json.dumps({"ready": True}), file=answers, flush=True)
    yield from sys.stdin


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
