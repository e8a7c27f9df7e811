"""A plan decoded by `vllm-rast serve` instances that run already."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.backends import FINISHED, split_stop
from vllm_rast.evaluation.runs.decode import Completion, Failure, Job
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.plan import Plan
from vllm_rast.evaluation.runs.pool import Event, Finished, Joined, Lost, Pool, Refused, say
from vllm_rast.evaluation.runs.served_mix import PATH, check_served
from vllm_rast.evaluation.runs.served_trace import served_trace
from vllm_rast.evaluation.runs.tokenizer import BaseTokenizer
from vllm_rast.evaluation.tasks.prompts import prompt_encoder

OPTION = "--servers"
KEYS = ("VLLM_API_KEY", "OPENAI_API_KEY")  # the environment variables that hold the servers' key
QUEUED = 2  # jobs that a server has, for each that its engine decodes
RETRIES = 4  # of the client, for 408, 409, 429, 5xx and broken connections; it waits 0.5 s, then 1 s, 2 s, 4 s
CONNECT_S = 10.0
HEALTH_EVERY_S = 15.0
HEALTH_FAILURES = 3  # in a row, and a server is lost even if its connections still stand
BACK_EVERY_S = 5.0  # between looks whether a lost server is back
PATIENCE_S = 120.0  # without any server
LOOK_S = 1.0


class ServersBackend:
    """All rows on every server. Raises UserError if one is not there, or serves anything but the plan's mix."""

    rows_apart = False

    def __init__(self, plan: Plan, urls: Sequence[str]):
        self.plan = plan
        self.tokenizer = BaseTokenizer(plan).loaded
        if self.tokenizer is None:
            raise UserError(f"--model {plan.models.base}: no tokenizer; {OPTION} needs the base's on this machine")
        self.crew = ServerCrew(plan, urls, self.body)
        try:
            self.hosts = self.crew.connect()
        except BaseException:
            self.crew.close()
            raise
        self.device = f"servers: {next(iter(self.hosts.values()))}"
        self.encode = prompt_encoder(self.tokenizer)

    def stream(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Completion | Failure]]:
        """See Backend."""
        yield from Pool(self.crew).stream(jobs)

    def body(self, job: Job, longest: int) -> dict[str, Any]:
        """The request for a job, on a server with so many tokens of context. Everything is said, so that nothing that
        the base's folder recommends comes in. Raises UserError for a prompt that leaves no room for an answer."""
        prompt = self.encode(job.prompt)
        if len(prompt) >= longest:
            raise UserError(
                f"{OPTION}: the prompt of {job.key.benchmark} {job.key.problem} has {len(prompt)} tokens, and the "
                f"servers take {longest}; start them with more --max-model-len, or leave the problem out"
            )
        strings, token_ids = split_stop(job.stop, self.tokenizer)
        alpha = job.alpha if isinstance(job.alpha, str | int | float) else list(job.alpha)
        asked = {"alpha": alpha} if self.plan.trace is None else {"alpha": alpha, "trace": self.plan.trace}
        extra = {
            "vllm_xargs": asked,
            "stop_token_ids": token_ids or None,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        return {
            "prompt": prompt,
            "temperature": job.temperature,
            "top_p": job.top_p,
            "max_tokens": min(job.max_tokens, longest - len(prompt)),
            "seed": job.seed,
            "stop": strings or None,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "extra_body": extra,
        }


class Server:
    """One server, from when it is found until it is lost: the pool's worker."""

    def __init__(self, crew: ServerCrew, url: str, served: dict[str, Any]):
        self.crew, self.name, self.served = crew, url, served
        self.window = QUEUED * int(served["max_num_seqs"])
        self.longest = int(served["max_model_len"])
        self.tasks: set[asyncio.Task[None]] = set()
        self.lost = False

    def send(self, jobs: Sequence[Job]) -> None:
        self.crew.loop.call_soon_threadsafe(self._begin, list(jobs))

    def _begin(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.spawn(self.crew.ask(self, job))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.crew.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class ServerCrew:
    """Servers as workers of a pool. One thread runs all requests; a server that is lost joins again once it is back.

    body: what is asked of a server for a job, given its tokens of context.
    """

    coming = 0

    def __init__(self, plan: Plan, urls: Sequence[str], body: Callable[[Job, int], dict[str, Any]]):
        import openai

        self.openai, self.plan, self.body = openai, plan, body
        self.urls = list(dict.fromkeys(url.rstrip("/").removesuffix("/v1") for url in urls))
        self.happened: SimpleQueue[Event | BaseException] = SimpleQueue()
        self.alive: set[str] = set()
        self.returning: dict[str, asyncio.Task[None]] = {}  # looks for lost servers; a loop keeps no task alive
        self.last_alive = time.monotonic()
        self.last_reason = ""
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="vllm-rast-servers", daemon=True)
        self.thread.start()
        self.clients = {url: self._client(url) for url in self.urls}

    def connect(self) -> dict[str, str]:
        """Find every server and check what it serves; {url: device}. Raises UserError for the first that is wrong."""
        served = {url: self._wait(self._identity(url)) for url in self.urls}
        for url in self.urls:
            check_served(self.plan, served[url], f"{OPTION} {url}")
        for url in self.urls:
            self.loop.call_soon_threadsafe(self._join, url, served[url])
        return {url: served[url]["device"] for url in self.urls}

    def events(self) -> Iterable[Event]:
        events: list[Event] = []
        while not events:
            try:
                one = self.happened.get(timeout=LOOK_S)
            except Empty:
                if self.alive:
                    self.last_alive = time.monotonic()
                elif time.monotonic() - self.last_alive > PATIENCE_S:
                    raise RunError(f"no server is left, the last: {self.last_reason}") from None
                continue
            if isinstance(one, BaseException):
                raise one
            events.append(one)
            while not self.happened.empty() and not isinstance(one, BaseException):
                one = self.happened.get()
                if isinstance(one, BaseException):
                    raise one
                events.append(one)
        return events

    def close(self) -> None:
        """Drop all requests: a server stops decoding for a client that has gone."""
        if not self.loop.is_closed():
            self._wait(self._end())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()

    async def ask(self, server: Server, job: Job) -> None:
        """Decode one job. Whatever comes of it becomes an event."""
        openai = self.openai
        try:
            body = self.body(job, server.longest)
            answer = await self.clients[server.name].completions.create(model=server.served["name"], **body)
        except openai.APIConnectionError as error:  # after all retries; which of its jobs was to blame is not known
            self._lose(server, first_line(error.__cause__ or error))
        except (openai.InternalServerError, openai.RateLimitError, openai.ConflictError) as error:
            if await self._is_healthy(server.name):
                self.happened.put(Refused(server, job.key, refusal(server.name, error)))
            else:
                self._lose(server, first_line(error))
        except openai.APIStatusError as error:  # 4xx
            self.happened.put(UserError(refusal(server.name, error)))
        except UserError as error:
            self.happened.put(error)
        else:
            choice, usage = answer.choices[0], answer.usage
            if choice.finish_reason in FINISHED:
                trace = None if self.plan.trace is None else served_trace(choice)
                counts = usage.prompt_tokens, usage.completion_tokens
                made = Completion(choice.text, choice.finish_reason, *counts, trace)
                self.happened.put(Finished(server, job.key, made))
            else:
                self.happened.put(Refused(server, job.key, f"{server.name}: finish_reason={choice.finish_reason}"))

    def _client(self, url: str) -> Any:
        key = next((os.environ[name] for name in KEYS if os.environ.get(name)), "none")
        timeout = self.openai.Timeout(None, connect=CONNECT_S)  # an answer may take hours; `_watch` sees a server hang
        return self.openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=RETRIES, timeout=timeout)

    async def _identity(self, url: str) -> dict[str, Any]:
        """What a server says about itself. Raises UserError if there is none, or it is not ours."""
        openai, where = self.openai, f"{OPTION} {url}"
        try:
            return await self.clients[url].with_options(timeout=60, max_retries=1).get(PATH, cast_to=dict[str, Any])
        except openai.NotFoundError as error:
            raise UserError(f"{where}: this is not `vllm-rast serve`, or an earlier version") from error
        except openai.APIConnectionError as error:
            raise UserError(f"{where}: no server there ({first_line(error.__cause__ or error)})") from error
        except openai.APIStatusError as error:
            raise UserError(refusal(url, error)) from error

    def _join(self, url: str, served: dict[str, Any]) -> None:
        server = Server(self, url, served)
        self.alive.add(url)
        self.happened.put(Joined(server))
        server.spawn(self._watch(server))

    async def _watch(self, server: Server) -> None:
        """Lose a server that no longer says that it is healthy, even if nothing breaks its connections."""
        failures = 0
        while failures < HEALTH_FAILURES:
            await asyncio.sleep(HEALTH_EVERY_S)
            failures = 0 if await self._is_healthy(server.name) else failures + 1
        self._lose(server, "it no longer answers")

    async def _is_healthy(self, url: str) -> bool:
        client = self.clients[url].with_options(timeout=30, max_retries=0)
        try:
            await client.get(f"{url}/health", cast_to=type(None))
        except self.openai.OpenAIError:
            return False
        return True

    def _lose(self, server: Server, reason: str) -> None:
        if server.lost:
            return
        server.lost = True
        self.alive.discard(server.name)
        self.last_reason = f"{server.name}: {reason}"
        self.happened.put(Lost(server, reason))
        current = asyncio.current_task()
        for task in server.tasks - {current}:
            task.cancel()
        self.returning[server.name] = self.loop.create_task(self._wait_for_return(server.name))

    async def _wait_for_return(self, url: str) -> None:
        while True:
            await asyncio.sleep(BACK_EVERY_S)
            try:
                served = await self._identity(url)
                check_served(self.plan, served, url)
            except UserError:
                continue
            say(f"{url} is back")
            return self._join(url, served)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self.clients.values():
            await client.close()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


def first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def refusal(url: str, error: Any) -> str:
    """What a server's 4xx says, with the remedy if it is about the key."""
    body = error.body if isinstance(error.body, dict) else {}
    said = body.get("message") or first_line(error)
    remedy = f"; set {KEYS[0]} to the servers' key" if error.status_code in (401, 403) else ""
    return f"{OPTION} {url}: HTTP {error.status_code}: {' '.join(str(said).split())[:300]}{remedy}"
