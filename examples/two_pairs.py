"""Two pairs in one engine. A request sends one alpha for each, or names a single model."""

from vllm import SamplingParams

from vllm_rast import ModelPair, RastLLM

PROMPT = "Question:\nWhat does the candle cost?\nAnswer:\nLet's think step by step.\n"
PAIRS = [
    ModelPair("tiny:positive", "tiny:negative", alpha=1.0),
    ModelPair("tiny:ceiling", "tiny:base", alpha=0.0),  # what the large model learned, for comparison
]


def main() -> None:
    llm = RastLLM("tiny:base", pairs=PAIRS, enforce_eager=True, max_model_len=512)
    alphas = [None, [1.0, 0.5], [0.0, 1.0], "positive:2"]
    params = [
        SamplingParams(temperature=0, max_tokens=64, extra_args=None if alpha is None else {"alpha": alpha})
        for alpha in alphas
    ]
    for alpha, output in zip(alphas, llm.generate([PROMPT] * len(alphas), params), strict=True):
        print(f"alpha = {alpha}: {output.outputs[0].text.strip()!r}")


if __name__ == "__main__":
    main()
