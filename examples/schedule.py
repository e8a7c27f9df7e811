"""Weights that change as an answer is decoded: position 0 is the first new token."""

from vllm import SamplingParams

from vllm_rast import RastLLM

PROMPT = "Question:\nWhat do the javelin and the raisin cost?\nAnswer:\nLet's think step by step.\n"
SCHEDULES = {
    "the base for 8 tokens, then the mix": {"alpha": 1.0, "warmup": 8},
    "the mix for 8 tokens, then the base": {"alpha": 1.0, "until": 8},
    "from 0 to 1 over 16 tokens": {"ramp": [[0, 0], [16, 1]]},
    "0.2, and from token 10 on 1": [[0, 0.2], [10, 1.0]],
}


def main() -> None:
    llm = RastLLM(
        "tiny:base", positive="tiny:positive", negative="tiny:negative", enforce_eager=True, max_model_len=512
    )
    params = [SamplingParams(temperature=0, max_tokens=64, extra_args={"alpha": some}) for some in SCHEDULES.values()]
    for name, output in zip(SCHEDULES, llm.generate([PROMPT] * len(params), params), strict=True):
        print(f"{name}: {output.outputs[0].text.strip()!r}")


if __name__ == "__main__":
    main()
