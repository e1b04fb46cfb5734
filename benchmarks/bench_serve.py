"""The server under load: speed beside one text after the other and beside `transformers serve`, right answers, memory.

    python benchmarks/bench_serve.py [--smoke] [--only speed mixed replicas soak] [--soak MINUTES] [--threads 1] [--save]

Everything is on this machine's loopback, clients included, with glm-mini.

    speed   streamed completions of 48 tokens, 1, 4 and 8 at once: requests and tokens a second, time to the first text; beside the
            library writing them one after the other, and beside `transformers serve` with a GPT-2 of the same shape and random weights
    mixed   1,000 requests of all kinds and lengths, with bad ones and clients that leave among them: every good one must be answered
            as the library answers it
    replicas  two of them on a local Ray: speed, and one killed under load; who was in flight on it asks again
    soak    the same as mixed for MINUTES at a fixed rate, and the server's memory meanwhile

Prints tables, then one JSON line. Parts can be measured one at a time: --save keeps those of an earlier run that were not run now.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import torch
from results_page import RESULTS, environment, write_table_page
from serve_load import (
    OPENINGS,
    Answers,
    Load,
    Served,
    Timing,
    free_port,
    glmkit_server,
    replicas_of,
    serving,
    stream_all,
)

import glmkit

TOKENS = 48
PARTS = ("speed", "mixed", "replicas", "soak")


def prompts(count: int) -> list[str]:
    """Returns different prompts."""
    return [f"第{number}天。{OPENINGS[number % len(OPENINGS)]}" for number in range(count)]


def summary(timing: Timing) -> dict[str, float]:
    """Returns rates and percentiles."""
    first = {f"first_p{share}_ms": 1000 * float(np.percentile(timing.first, share)) for share in (50, 95, 99)}  # fmt: skip
    return {
        "requests_per_second": len(timing.whole) / timing.seconds,
        "tokens_per_second": timing.tokens / timing.seconds,
        **first,
        "whole_p50_ms": 1000 * statistics.median(timing.whole),
        "cpu_ms_per_token": 1000 * timing.cpu / timing.tokens,
    }


def measure_speed(arguments: argparse.Namespace, glm: Any) -> dict[str, Any]:
    """Returns speeds of the library, the server, and transformers' server, by how many requests there are at once."""
    count, levels = (8, (1, 4)) if arguments.smoke else (arguments.requests, (1, 4, 8))
    texts = prompts(count)
    rows: list[dict[str, Any]] = []

    def note(who: str, at_once: int, timing: Timing) -> None:
        rows.append({"who": who, "at_once": at_once, **summary(timing)})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)

    def load(server: Served, some: list[dict[str, Any]], at_once: int) -> Timing:
        before = server.cpu()
        timing = asyncio.run(stream_all(server.address, some, at_once, TOKENS))
        timing.cpu = server.cpu() - before
        return timing

    bodies = [{"model": "glm-mini", "prompt": text, "stream": True, "max_tokens": TOKENS} for text in texts]  # fmt: skip
    ours = [{**body, "min_tokens": TOKENS} for body in bodies]
    for dtype in ("int8", "float32"):
        with glmkit_server(arguments.threads, "--dtype", dtype) as server:
            asyncio.run(stream_all(server.address, ours[:8], 4, TOKENS))  # warm
            for at_once in levels:
                note(f"glmkit serve, {dtype}", at_once, load(server, ours, at_once))
    note("library, one by one", 1, one_by_one(glm, texts))
    with tempfile.TemporaryDirectory() as folder:
        peer_folder(Path(folder))
        for name, options in (("transformers serve", []), ("transformers serve, continuous batching", ["--continuous-batching"])):  # fmt: skip
            theirs = [{**body, "model": folder} for body in bodies]
            try:
                with peer(folder, options, arguments.threads) as server:
                    asyncio.run(stream_all(server.address, theirs[:2], 2, TOKENS))
                    for at_once in levels:
                        note(name, at_once, load(server, theirs, at_once))
            except (RuntimeError, httpx.HTTPError) as error:
                rows.append({"who": name, "failed": f"{type(error).__name__}: {error}"[:300]})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {"requests": count, "tokens": TOKENS, "rows": rows}


def one_by_one(glm: Any, texts: list[str]) -> Timing:
    """Returns the times of `glm.generate` with one text after the other."""
    timing = Timing()
    settings: dict[str, Any] = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
    glm.generate(texts[0], **settings)
    began, cpu = time.perf_counter(), time.process_time()
    for text in texts:
        start, first = time.perf_counter(), None
        for piece in glm.generate(text, stream=True, **settings):
            if first is None and piece.strip():
                first = time.perf_counter() - start
        timing.whole.append(time.perf_counter() - start)
        timing.first.append(timing.whole[-1] if first is None else first)
        timing.tokens += TOKENS
    timing.seconds, timing.cpu = time.perf_counter() - began, time.process_time() - cpu
    return timing


def peer_folder(folder: Path) -> None:
    """Writes a GPT-2 of glm-mini's shape, with its vocabulary, that never ends a text by itself."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from glmkit.checkpoint import resolve
    from glmkit.embedded import DEFAULT_MODEL

    ours = glmkit.load(backend="torch").model.config
    config = GPT2Config(
        vocab_size=ours.vocab_size,
        n_positions=2 * ours.max_sequence_length,
        n_embd=ours.hidden_size,
        n_layer=ours.num_layers,
        n_head=ours.num_attention_heads,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    file = str(resolve(DEFAULT_MODEL) / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=file, pad_token="<|endoftext|>").save_pretrained(folder)


def peer(folder: str, options: list[str], threads: int) -> Any:
    """Returns `serving` of `transformers serve`."""
    port = free_port()
    program = "from transformers.cli.transformers import main; main()"
    command = [
        sys.executable, "-c", program, "serve", folder, "--port", str(port), "--device", "cpu", "--dtype", "float32", *options,
    ]  # fmt: skip
    root = f"http://127.0.0.1:{port}"

    def ready(_: str) -> str | None:
        try:
            return f"{root}/v1" if httpx.get(f"{root}/health").status_code == 200 else None
        except httpx.HTTPError:
            return None

    return serving(command, ready, threads)


def measure_mixed(arguments: argparse.Namespace, glm: Any) -> dict[str, Any]:
    """Returns what came of a load of all kinds."""
    count, at_once = (60, 8) if arguments.smoke else (1000, 16)
    load, answers = Load(glm, 42 if arguments.smoke else 210), Answers()
    load.prepare()
    with glmkit_server(arguments.threads) as server:
        seconds = asyncio.run(send_mixed(server, load, answers, count, at_once))
        idle = asyncio.run(falls_idle(server))
    return {
        "requests": count,
        "at_once": at_once,
        "seconds": seconds,
        "right": dict(answers.right),
        "refused": dict(answers.refused),
        "left": answers.left,
        "wrong": answers.wrong,
        "idle_afterwards": idle,
    }


async def send_mixed(server: Served, load: Load, answers: Answers, count: int, at_once: int) -> float:  # fmt: skip
    """Sends so many mixed requests; returns the seconds that it took."""
    places = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(base_url=server.address, timeout=120) as client:

        async def one(number: int) -> None:
            async with places:
                await load.send(client, number, answers)

        began = time.perf_counter()
        await asyncio.gather(*map(one, range(count)))
        return time.perf_counter() - began


def measure_replicas(arguments: argparse.Namespace, glm: Any) -> dict[str, Any]:
    """Returns the speed of two replicas on Ray, and what a killed one costs."""
    count = 16 if arguments.smoke else 120
    texts = prompts(count)
    settings = {"max_tokens": TOKENS, "min_tokens": TOKENS}
    bodies = [{"model": "glm-mini", "prompt": text, **settings} for text in texts]
    expected = glm.generate(texts, max_new_tokens=TOKENS, min_new_tokens=TOKENS)
    rows = []
    with glmkit_server(arguments.threads, "--engine", "ray", "--replicas", "2") as server:
        streams = [{**body, "stream": True} for body in bodies]
        asyncio.run(stream_all(server.address, streams[:8], 8, TOKENS))  # warm
        for at_once in (1, 8, 16):
            some = streams[: arguments.requests]
            before = server.cpu()
            timing = asyncio.run(stream_all(server.address, some, at_once, TOKENS))
            timing.cpu = server.cpu() - before
            rows.append({"who": "2 replicas on Ray", "at_once": at_once, **summary(timing)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        began = time.perf_counter()
        answers, again = asyncio.run(kill_one(server, bodies))
        killing = time.perf_counter() - began
        while len(replicas_of(server.process)) < 2:
            time.sleep(0.1)
        back = time.perf_counter() - began
    wrong = [f"request {n}" for n, text in enumerate(answers) if text != expected[n]]
    return {"rows": rows, "requests": count, "seconds": killing, "asked_again": again, "replaced_within_seconds": back, "wrong": wrong}  # fmt: skip


async def kill_one(server: Served, bodies: list[dict[str, Any]]) -> tuple[list[str], int]:
    """Sends requests, eight at once, and kills a replica after a quarter; returns the answers and how often one was asked again."""
    places, again, done = asyncio.Semaphore(8), 0, 0
    async with httpx.AsyncClient(base_url=server.address, timeout=60) as client:

        async def one(body: dict[str, Any]) -> str:
            nonlocal again, done
            async with places:
                while True:
                    try:
                        answer = await client.post("completions", json=body)
                        if answer.status_code == 200:
                            done += 1
                            if done == len(bodies) // 4:
                                replicas_of(server.process)[0].kill()
                            return str(answer.json()["choices"][0]["text"])
                    except httpx.HTTPError:
                        pass
                    again += 1
                    await asyncio.sleep(0.5)

        return await asyncio.gather(*map(one, bodies)), again


async def falls_idle(server: Served) -> bool:
    """Returns whether nothing runs or waits, soon after all clients have gone."""
    root = server.address.removesuffix("/v1")
    async with httpx.AsyncClient(base_url=root) as client:
        for _ in range(50):
            text = (await client.get("/metrics")).text
            values = [line.split()[1] for line in text.splitlines() if line.startswith(("glmkit_running_texts ", "glmkit_queue_requests "))]  # fmt: skip
            if values == ["0.0", "0.0"]:
                return True
            await asyncio.sleep(0.1)
    return False


def measure_soak(arguments: argparse.Namespace, glm: Any) -> dict[str, Any]:
    """Returns the server's memory over the minutes, and what came of the requests."""
    load, answers = Load(glm, 42 if arguments.smoke else 210), Answers()
    load.prepare()
    with glmkit_server(arguments.threads) as server:
        minutes, megabytes = asyncio.run(soak(server, load, answers, arguments))
    # What the first fifth fills (caches, pools of memory) is no leak.
    later = [place for place, minute in enumerate(minutes) if minute >= minutes[-1] / 5]
    slope = np.polyfit([minutes[n] for n in later], [megabytes[n] for n in later], 1)[0]
    return {
        "minutes": arguments.soak,
        "rate": arguments.rate,
        "right": sum(answers.right.values()),
        "refused": sum(answers.refused.values()),
        "left": answers.left,
        "wrong": answers.wrong,
        "memory": {"minute": [round(one, 2) for one in minutes], "mib": [round(one, 1) for one in megabytes]},
        "first_mib": megabytes[later[0]],
        "last_mib": megabytes[-1],
        "mib_per_hour": 60 * float(slope),
    }  # fmt: skip


async def soak(server: Served, load: Load, answers: Answers, arguments: argparse.Namespace) -> Any:
    """Sends requests at a rate; returns minutes and the memory at each."""
    minutes: list[float] = []
    megabytes: list[float] = []
    began, number, tasks = time.monotonic(), 0, set()
    async with httpx.AsyncClient(base_url=server.address, timeout=120) as client:
        while (passed := time.monotonic() - began) < 60 * arguments.soak:
            if not minutes or passed / 60 - minutes[-1] >= arguments.soak / 60:
                minutes.append(passed / 60)
                megabytes.append(server.memory())
            if len(tasks) < 16:  # a slow machine gets fewer, not a flood
                task = asyncio.create_task(load.send(client, number, answers))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
            await asyncio.sleep(1 / arguments.rate)
        await asyncio.gather(*tasks)
        minutes.append((time.monotonic() - began) / 60)
        megabytes.append(server.memory())
    return minutes, megabytes


def tables(parts: dict[str, Any]) -> str:
    """Returns the parts that there are as Markdown."""
    lines: list[str] = []
    if "speed" in parts:
        lines += [
            "## Speed",
            "",
            "| | at once | requests/s | tokens/s | first text, ms: p50 | p95 | p99 | whole, p50 ms | CPU, ms a token |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for row in [*parts["speed"]["rows"], *parts.get("replicas", {}).get("rows", ())]:
            if "failed" in row:
                lines.append(
                    f"| {row['who']} | does not run: {row['failed'][:120]} | | | | | | | |"
                )
                continue
            cpu = f"{row['cpu_ms_per_token']:.2f}" if "cpu_ms_per_token" in row else ""
            times = " | ".join(f"{row[name]:.0f}" for name in ("first_p50_ms", "first_p95_ms", "first_p99_ms", "whole_p50_ms"))  # fmt: skip
            lines.append(f"| {row['who']} | {row['at_once']} | {row['requests_per_second']:.1f} | {row['tokens_per_second']:.0f} | {times} | {cpu} |")  # fmt: skip
        lines.append("")
    if "mixed" in parts:
        one = parts["mixed"]
        lines += [
            "## Right answers",
            "",
            f"{one['requests']} requests, {one['at_once']} at once, in {one['seconds']:.0f} s. Good ones answered as the library answers them: "
            f"{sum(one['right'].values())} ({', '.join(f'{kind} {count}' for kind, count in one['right'].items())}). Refused as they should be: "
            f"{sum(one['refused'].values())} ({', '.join(f'{kind} {count}' for kind, count in one['refused'].items())}). Clients that left in the "
            f"middle of a stream: {one['left']}. Wrong or lost: {len(one['wrong'])}. Afterwards nothing ran or waited: "
            f"{'yes' if one['idle_afterwards'] else 'no'}.",
            "",
        ]
    if "replicas" in parts:
        one = parts["replicas"]
        lines += [
            "## A killed replica",
            "",
            f"Two replicas on a local Ray, {one['requests']} requests, 8 at once; after a quarter of them one replica was killed (SIGKILL). "
            f"{one['asked_again']} requests that were in flight on it failed and were asked again by the client; wrong or lost in the end: "
            f"{len(one['wrong'])}. All were answered in {one['seconds']:.0f} s, and {one['replaced_within_seconds']:.0f} s after the beginning there "
            "were two replicas again.",
            "",
        ]
    if "soak" in parts:
        one = parts["soak"]
        lines += [
            "## Memory",
            "",
            f"{one['minutes']:g} minutes at up to {one['rate']:g} requests a second of the same kinds: {one['right']} right, {one['refused']} refused, "
            f"{one['left']} left, {len(one['wrong'])} wrong. The server held {one['first_mib']:.0f} MiB after the first fifth of the time and "
            f"{one['last_mib']:.0f} MiB at the end; the line through the rest rises by {one['mib_per_hour']:.1f} MiB an hour.",
            "",
        ]
    return "\n".join(lines).strip()


def save(parts: dict[str, Any], seconds: int, command: str) -> Path:
    """Writes the page, with the parts of an earlier one that were not measured now."""
    values = {"environment": environment(), "seconds": seconds}
    file = RESULTS / f"serve_cpu_{values['environment']['date'][:7]}.json"
    earlier = json.loads(file.read_text(encoding="utf-8"))["parts"] if file.exists() else {}
    for part in parts.values():
        part["commit"] = values["environment"]["commit"]
    values["parts"] = {name: {**earlier, **parts}[name] for name in PARTS if name in {**earlier, **parts}}  # fmt: skip
    introduction = (
        f"`glmkit serve glm-mini` (34 million parameters, native decoder, one thread, in 8 bits where nothing is said) with clients on the same cores, httpx2 {version('httpx2')}, fastapi "
        f"{version('fastapi')}, uvicorn {version('uvicorn')}. Speed: completions of {TOKENS} tokens each, streamed; `transformers serve` runs a GPT-2 of the "
        "same layers, width, heads and vocabulary in float32. Where a line is of few requests, p95 and p99 are the slowest one or two. Other work used the processor meanwhile, more at some lines than at others: "
        "what it does not change is the time of the processor for a token, the server's alone."
    )
    return write_table_page("serve", "The server under load", introduction, tables(values["parts"]), values, command)  # fmt: skip


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few requests")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts")
    parser.add_argument(
        "--soak", type=float, default=0.0, metavar="MINUTES", help="0 leaves it out"
    )
    parser.add_argument("--rate", type=float, default=5.0, help="requests a second of the soak")
    parser.add_argument("--requests", type=int, default=64, help="of each line of the speed")
    parser.add_argument("--threads", type=int, default=1, help="of each server's model")
    parser.add_argument("--save", action="store_true", help="write docs/results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    wanted = arguments.only or ["speed", "mixed", *(["soak"] if arguments.soak else [])]
    if "soak" in wanted and not arguments.soak:
        parser.error("soak needs --soak MINUTES")
    begun, glm = time.perf_counter(), glmkit.load()
    measures = {
        "speed": measure_speed,
        "mixed": measure_mixed,
        "replicas": measure_replicas,
        "soak": measure_soak,
    }
    parts = {part: measures[part](arguments, glm) for part in PARTS if part in wanted}
    seconds = round(time.perf_counter() - begun)
    print(tables(parts))
    if arguments.save:
        given = " ".join(sys.argv[1:])
        print(save(parts, seconds, f"python benchmarks/bench_serve.py {given}"), file=sys.stderr)
    print(json.dumps({**parts, "environment": environment(), "seconds": seconds}, ensure_ascii=False))  # fmt: skip
    wrong = [one for part in parts.values() for one in part.get("wrong", ())]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
