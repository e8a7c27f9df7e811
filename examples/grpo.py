"""From a small model to an adapter by reinforcement learning, with the grader as the reward: TRL and LoRA.

pip install trl peft
python examples/grpo.py runs/grpo
vllm-rast generate --model tiny:base --positive tiny:negative+runs/grpo --run runs/mix --n 4
vllm-rast evaluate runs/mix
"""

import random
import sys
from typing import Any

from vllm_rast.grading import answer_reward
from vllm_rast.mix.model_names import resolve_model
from vllm_rast.tiny.benchmark import test_keys
from vllm_rast.tiny.world import KNOWN_ORDER, questions

KNOWN = 200  # what the small model knows: reinforcement learning teaches it no more
QUESTIONS, SAMPLES = 24, 8  # of a step


def training_rows(steps: int) -> list[dict[str, Any]]:
    """Columns as TRL and the reward read them: the prompt, the gold, and that only a box counts."""
    stream = questions(random.Random(1), KNOWN_ORDER[:KNOWN], test_keys())
    asked = [next(stream) for _ in range(steps * QUESTIONS)]
    return [{"prompt": one.prompt, "answer": str(one.answer), "kind": "integer", "boxed_only": True} for one in asked]


def main(folder: str = "runs/grpo", steps: int = 80) -> None:
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    from datasets import Dataset

    trainer = GRPOTrainer(
        model=resolve_model("tiny:negative"),
        reward_funcs=answer_reward,
        train_dataset=Dataset.from_list(training_rows(steps)),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=QUESTIONS * SAMPLES,
            num_generations=SAMPLES,
            max_completion_length=96,
            learning_rate=2e-3,
            warmup_steps=5,
            beta=0.2,  # gentle: what the reward does not speak about stays, and only such a change carries over
            logging_steps=10,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            seed=1,
        ),
    )
    trainer.train()
    trainer.save_model(folder)
    print(f"{folder}: an adapter on tiny:negative")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
