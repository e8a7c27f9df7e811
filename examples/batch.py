"""Many prompts, decoded with base + 1.0 * (positive - negative): `RastLLM` is a `vllm.LLM`."""

from vllm import SamplingParams

from vllm_rast import RastLLM

THINGS = ["the javelin", "the raisin", "the candle"]


def main() -> None:
    llm = RastLLM(
        "tiny:base", positive="tiny:positive", negative="tiny:negative", enforce_eager=True, max_model_len=512
    )
    prompts = [f"Question:\nWhat does {thing} cost?\nAnswer:\nLet's think step by step.\n" for thing in THINGS]
    for thing, output in zip(THINGS, llm.generate(prompts, SamplingParams(temperature=0, max_tokens=64)), strict=True):
        print(f"{thing}: {output.outputs[0].text.strip()}")


if __name__ == "__main__":  # vLLM starts processes of its own
    main()
