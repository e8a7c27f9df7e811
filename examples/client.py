"""A mix behind vLLM's OpenAI server, asked by the openai client: weights in the body, or by the model's name, and what
each model thinks of every token.

python client.py                          starts a server for the answers
python client.py http://127.0.0.1:8000    asks one that runs, of the tiny models with --expose base
"""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from openai import OpenAI

QUESTION = [{"role": "user", "content": "What does the candle cost?"}]


def main() -> None:
    if sys.argv[1:]:
        ask(sys.argv[1])
        return
    with serving() as url:
        ask(url)


def ask(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    for model, alpha in (("tiny:base", 1.0), ("tiny:base", 0.3), ("tiny:base:base", None)):
        answer = client.chat.completions.create(
            model=model,
            messages=QUESTION,
            temperature=0,
            max_tokens=48,
            extra_body={} if alpha is None else {"vllm_xargs": {"alpha": alpha}},
        )
        print(f"{model}, alpha {alpha}: {answer.choices[0].message.content!r}")
    answer = client.chat.completions.create(
        model="tiny:base", messages=QUESTION, temperature=0, max_tokens=12, extra_body={"vllm_xargs": {"trace": 1}}
    )
    trace = answer.choices[0].model_extra["token_trace"]
    for place, token in enumerate(trace["tokens"]):
        moved = trace["mix"]["logprobs"][place] - trace["base"]["logprobs"][place]
        print(f"{token!r:12} {moved:+.2f} nats, the base's own: {trace['base']['top_tokens'][place][0]!r}")


@contextmanager
def serving() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm_rast", "serve", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([*command, "--expose", "base"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def wait_until_up(url: str, server: "subprocess.Popen[bytes]") -> None:
    while True:
        if server.poll() is not None:
            sys.exit("the server did not start; run `vllm-rast serve` to see why")
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
