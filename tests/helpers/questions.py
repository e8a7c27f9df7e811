"""Three questions of the tiny benchmark, as prompts."""

from __future__ import annotations

import json

from paths import ROOT

QUESTIONS = [json.loads(line)["question"] for line in (ROOT / "datasets/tiny.jsonl").read_text().splitlines()[:3]]
PROMPTS = [f"Question:\n{question}\nAnswer:\nLet's think step by step.\n" for question in QUESTIONS]
