"""Each request chooses its own weights; they are mixed freely in one batch."""

import numpy as np
from vllm import SamplingParams

from vllm_rast import RastLLM

PROMPT = "Question:\nWhat do the javelin and the raisin cost?\nAnswer:\nLet's think step by step.\n"


def main() -> None:
    llm = RastLLM(
        "tiny:base", positive="tiny:positive", negative="tiny:negative", enforce_eager=True, max_model_len=512
    )
    alphas = [*np.linspace(0, 1, 3), "positive"]
    params = [SamplingParams(temperature=0, max_tokens=64, extra_args={"alpha": alpha}) for alpha in alphas]
    for alpha, output in zip(alphas, llm.generate([PROMPT] * len(alphas), params), strict=True):
        print(f"alpha = {alpha}: {output.outputs[0].text.strip()!r}")


if __name__ == "__main__":
    main()
