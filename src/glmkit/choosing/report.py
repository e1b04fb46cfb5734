"""A choice as a table for people, in either language, and as plain values."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len

from glmkit.choosing.options import Option, gib
from glmkit.choosing.ranking import Choice
from glmkit.choosing.words import Text, time_words

METHOD_WORDS = {
    "zero-shot": Text("zero-shot", "零样本"),
    "lora": Text("LoRA", "LoRA"),
    "full": Text("full", "全量微调"),
}
HEADS = (
    Text("model", "模型"),
    Text("method", "方法"),
    Text("training GiB", "训练 GiB"),
    Text("training time", "训练时间"),
    Text("weights", "权重"),
    Text("inference GiB", "推理 GiB"),
    Text("one answer", "单次回答"),
    Text("answers/s", "每秒回答数"),
    Text("", ""),
)


def as_text(choice: Choice, chinese: bool) -> str:
    """Returns what was asked, the ranking, the first one's reasons and command, and other families."""
    request, hardware = choice.request, choice.request.hardware

    def say(english: str, chinese_text: str) -> str:
        return chinese_text if chinese else english

    count = f"{hardware.count} x " if hardware.count > 1 else ""
    limit = "" if request.latency is None else say(
        f", answers within {time_words(request.latency).en}", f"，回答限 {time_words(request.latency).zh}"
    )  # fmt: skip
    lines = [
        say(
            f"{request.need.words.en}, {request.examples} examples, language {request.language}, on {count}{hardware.name}"
            f" ({hardware.source.en}){limit}; texts of {request.input_tokens} tokens, answers of {request.output_tokens}",
            f"{request.need.words.zh}，{request.examples} 条样本，语言 {request.language}，{count}{hardware.name}"
            f"（{hardware.source.zh}）{limit}；文本 {request.input_tokens} 个词元，回答 {request.output_tokens} 个",
        ),
        "",
    ]
    better = [advice for advice in choice.advice if advice.better]
    if better:
        lines.append(say("Another family is the better answer:", "更合适的是另一类模型："))
        lines += [f"  * {one.family.say(chinese)}: {one.reason.say(chinese)} [{one.source}]" for one in better]  # fmt: skip
        lines += ["", say("Of the GLMs:", "若用 GLM：")]
    lines += _columns([[head.say(chinese) for head in HEADS], *(row(one, chinese) for one in choice.ranking)])  # fmt: skip
    best = choice.best
    if best is None:
        lines += ["", say("None of them suits.", "没有合适的 GLM。")]
    else:
        lines += ["", f"{best.candidate.name}, {METHOD_WORDS[best.method].say(chinese)}:"]
        lines += [f"  + {reason.say(chinese)}" for reason in best.reasons]
        lines += [f"  - {problem.say(chinese)}" for problem in best.problems.values()]
        lines.append(f"  $ {best.command}")
    worth = [advice for advice in choice.advice if not advice.better]
    if worth:
        lines += ["", say("Worth a comparison:", "值得比较：")]
        lines += [f"  * {one.family.say(chinese)}: {one.reason.say(chinese)} [{one.source}]" for one in worth]  # fmt: skip
    lines += ["", say(
        "Memory by formula (docs/guides/choose.md), checked against measurement; times are estimates, within a factor of two at best.",
        "内存由公式算出（docs/guides/choose.zh.md），与实测核对过；时间只是估计，最好也只准到两倍以内。",
    )]  # fmt: skip
    return "\n".join(lines)


def as_dict(choice: Choice) -> dict[str, Any]:
    """Returns all of a choice as plain values: bytes, seconds, words in both languages."""
    request, hardware = choice.request, choice.request.hardware
    return {
        "request": {
            "task": request.need.name,
            "examples": request.examples,
            "language": request.language,
            "latency_seconds": request.latency,
            "hours": request.hours,
            "input_tokens": request.input_tokens,
            "output_tokens": request.output_tokens,
            "hardware": {
                "name": hardware.name,
                "count": hardware.count,
                "device": hardware.device,
                "dtype": hardware.dtype,
                "memory": hardware.memory,
                "usable": hardware.usable,
                "flops": hardware.flops,
                "bandwidth": hardware.bandwidth,
                "source": hardware.source._asdict(),
            },
        },
        "best": None if choice.best is None else choice.best.candidate.name,
        "ranking": [_values(option) for option in choice.ranking],
        "others": [_values(option) for option in choice.others],
        "other_families": [
            {
                "family": one.family._asdict(),
                "better": one.better,
                "reason": one.reason._asdict(),
                "source": one.source,
            }
            for one in choice.advice
        ],
    }


def _values(option: Option) -> dict[str, Any]:
    training, inference = option.training, option.inference
    return {
        "model": option.candidate.name,
        "source": option.candidate.source,
        "parameters": option.parameters,
        "method": option.method,
        "training": None if training is None else vars(training),
        "inference": {**vars(inference), "way": vars(inference.way)},
        "problems": {name: text._asdict() for name, text in option.problems.items()},
        "reasons": [text._asdict() for text in option.reasons],
        "command": option.command,
    }


def row(option: Option, chinese: bool) -> list[str]:
    """Returns an option's cells under `HEADS`."""
    training, inference = option.training, option.inference
    divided = f" x {inference.way.devices}" if inference.way.devices > 1 else ""
    return [
        option.candidate.name,
        METHOD_WORDS[option.method].say(chinese),
        "-" if training is None else gib(training.memory),
        "-" if training is None else time_words(training.seconds).say(chinese),
        inference.way.dtype,
        gib(inference.memory) + divided,
        time_words(inference.seconds).say(chinese),
        f"{inference.answers_per_second:.0f}"
        if inference.answers_per_second >= 10
        else f"{inference.answers_per_second:.2g}",
        "; ".join(problem.say(chinese) for problem in option.problems.values()),
    ]


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]  # fmt: skip
