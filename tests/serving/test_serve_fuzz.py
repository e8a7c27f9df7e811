"""Wrong requests by the hundred, in the midst of streams that must not notice.

VLLM_RAST_FUZZ=10000 sends as many instead of 500.
"""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections import Counter

import openai
from malformed import Malformed
from serving import Server

COUNT = int(os.environ.get("VLLM_RAST_FUZZ", "500"))
SENDERS = 4
STREAMS = [("tiny:base", "Question:\n"), ("tiny:base:positive", "Answer:\n"), ("tiny:base:late", "The till")]
# Of all processes, from the first fifth of the requests on. Over 16,000 the server and the engine gained 7 MiB. The
# worker's gain is oneDNN's: for each number of rows that a step has for the first time, vLLM keeps a program for every
# layer (2 MiB in all for these models; the last 128 numbers stay), in stock vLLM too. Once it has met them it is flat.
GROWTH_BYTES = 100 << 20


def stream_text(client: openai.OpenAI, model: str, prompt: str) -> str:
    events = client.completions.create(
        model=model, prompt=prompt, temperature=0, max_tokens=150, stream=True, extra_body={"ignore_eos": True}
    )
    return "".join(event.choices[0].text for event in events)


def send(server: Server, path: str, body: bytes, content_type: str) -> tuple[int, str]:
    request = urllib.request.Request(server.url + path, body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wrong_answer(status: int, text: str, body: bytes) -> str | None:
    """What is wrong about the answer to a wrong request: it is either accepted, or refused in one line.

    A refusal may show what the client sent, and with it the client's own line breaks.
    """
    if status == 200:
        return None
    if status >= 500 and status != 501:  # 501: what vLLM has not implemented
        return f"status {status}"
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return "no message"
    broken = "\n" in message.strip() and rb"\n" not in body
    return "more than one line" if broken or len(message) > 2000 + len(body) else None


def test_wrong_requests_harm_nobody(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    undisturbed = [stream_text(client, *stream) for stream in STREAMS]
    over = threading.Event()
    wrong: list[str] = []
    seen: Counter[int] = Counter()
    streamed: Counter[int] = Counter()
    sizes: list[int] = []

    def keep_streaming(number: int) -> None:
        while not over.is_set():
            try:
                if stream_text(client, *STREAMS[number]) != undisturbed[number]:
                    wrong.append(f"stream {number} changed")
            except Exception as error:
                wrong.append(f"stream {number}: {error}")
            streamed[number] += 1

    def send_wrong(sender: int) -> None:
        source = Malformed(sender)
        for _ in range(COUNT // SENDERS):
            path, body, content_type = source.request()
            try:
                status, text = send(server, path, body, content_type)
            except Exception as error:
                wrong.append(f"{path} {body[:300]!r}: {error!r}")
                continue
            seen[status] += 1
            if complaint := wrong_answer(status, text, body):
                wrong.append(f"{path} {body[:300]!r}: {complaint}: {text[:300]}")
            if seen.total() == COUNT // 5:
                sizes.append(server.rss())

    before = server.engine().pid
    streams = [threading.Thread(target=keep_streaming, args=(number,)) for number in range(len(STREAMS))]
    senders = [threading.Thread(target=send_wrong, args=(number,)) for number in range(SENDERS)]
    for thread in streams + senders:
        thread.start()
    for thread in senders:
        thread.join()
    over.set()
    for thread in streams:
        thread.join()
    sizes.append(server.rss())
    print(f"\n{seen.total()} wrong requests: {dict(seen)}; {streamed.total()} streams beside them; MiB: ", end="")
    print(" ".join(f"{size >> 20}" for size in sizes))
    assert not wrong, f"{len(wrong)} of {COUNT}:\n" + "\n".join(wrong[:20])
    assert seen[400] > COUNT / 3, seen
    assert min(streamed.values()) > 0
    assert server.engine().pid == before
    assert json.loads(server.get("/health/decode"))["status"] == "ok"
    assert server.metric("vllm:kv_cache_usage_perc") == 0
    assert len(sizes) == 2 and sizes[1] - sizes[0] < GROWTH_BYTES, sizes
