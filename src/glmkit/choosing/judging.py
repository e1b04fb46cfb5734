"""What speaks for and against a model and a method: the rules of the ranking, with their reasons.

In: an option's numbers and what is wanted. Out: its problems, how well its method suits the examples, and words.
"""

from __future__ import annotations

from glmkit.checkpoint.architecture import Architecture
from glmkit.choosing.models import Candidate
from glmkit.choosing.options import SPECIALS, Inference, Method, Request, Training, gib, rounded
from glmkit.choosing.words import Text, time_words
from glmkit.embedded import is_here

PROBLEMS = ("memory", "language", "length", "latency", "time", "objective")
"""From the gravest on: it does not fit; the model has not read the language; texts are longer than it reads; an answer takes
too long; training does; pretraining was of another kind."""

FEW = 32
"""Examples from which on training is worth it: PET (arXiv 2009.07118) fine-tunes with 32, patterns and words as glmkit's."""

MANY = 1000
"""Examples from which on all weights are worth training. On 100 to 10,000 examples LoRA was about as good (arXiv 2106.09685,
table 16), on all data full training was."""

LARGE = 1_000_000_000
"""Parameters from which on LoRA is enough and easier to keep."""


def problems_of(
    candidate: Candidate,
    config: Architecture,
    request: Request,
    training: Training | None,
    inference: Inference,
) -> dict[str, Text]:
    """Returns the names of `PROBLEMS` that hold, with words."""
    found, hardware, need = {}, request.hardware, request.need
    room = gib(hardware.usable)
    if not inference.fits or (training is not None and not training.fits):
        if training is not None and not training.fits:
            what, needed = Text("training", "训练"), training.memory
        else:
            what, needed = Text("answering", "推理"), inference.memory
        found["memory"] = Text(
            f"{what.en} takes {gib(needed)} GiB on each device, of which {room} are usable",
            f"{what.zh}每块设备需 {gib(needed)} GiB，可用 {room} GiB",
        )
    if request.language not in candidate.languages:
        read = ", ".join(candidate.languages)
        found["language"] = Text(f"has read {read} alone", f"只学过 {read} 文本")
    positions = config.max_sequence_length
    if max(request.input_tokens + SPECIALS, request.output_tokens) > positions:
        found["length"] = Text(f"reads {positions} tokens", f"最多读 {positions} 个词元")
    if request.latency is not None and inference.seconds > request.latency:
        found["latency"] = Text(
            f"an answer takes about {time_words(inference.seconds).en}",
            f"一次回答约 {time_words(inference.seconds).zh}",
        )
    if training is not None and training.seconds > request.hours * 3600:
        found["time"] = Text(
            f"training takes about {time_words(training.seconds).en}",
            f"训练约 {time_words(training.seconds).zh}",
        )
    enough = training is not None and request.examples >= MANY  # fine-tuning teaches it
    near = {"token": {"token"}, "sentence": {"sentence", "document"}, "document": {"document"}}
    if not enough and not near[need.objective] & set(candidate.objectives):
        found["objective"] = Text(
            "was trained on short blanks alone; long answers must be learnt from examples",
            "预训练只有短空白，长回答要靠样本学",
        )
    return found


def level_of(
    candidate: Candidate, config: Architecture, method: Method, request: Request
) -> tuple[float, Text]:
    """Returns how well a method suits the examples, and why."""
    examples, need = request.examples, request.need
    if method == "zero-shot":
        if need.name in candidate.learnt and request.language == candidate.languages[0]:
            return 2.5, Text("this task was part of its pretraining", "预训练中已学过此任务")
        if need.kind == "blanks" or need.name == "generate":
            return 2.5, Text("the task is what it was pretrained for", "任务就是它的预训练目标")
        if need.kind == "labels":
            return 1.5, Text(
                "without training, labels are compared as words in a blank",
                "不训练：把标签当作空白里的词来比较",
            )
        return 1.0, Text("without training it has never seen this task", "不训练：没见过此任务")
    if examples < FEW:
        return 2.0, Text(
            f"{examples} examples are few; below {FEW} results vary much",
            f"只有 {examples} 条样本；不足 {FEW} 条时结果波动大",
        )
    small = config.num_parameters < LARGE
    if method == "full":
        good = small and examples >= MANY
        reason = Text(
            f"{examples} examples are enough to train all weights"
            if good
            else "all weights train where memory allows; adapters are as good here",
            f"{examples} 条样本足以训练全部权重"
            if good
            else "显存允许时可训练全部权重；此处 LoRA 一样好",
        )
        return (3.5 if good else 3.0), reason
    good = not small or examples < MANY
    reason = Text(
        "LoRA is about as good as training all weights of a model this large"
        if not small
        else "LoRA is about as good with so few examples, and does not forget",
        "对这么大的模型，LoRA 与训练全部权重相当"
        if not small
        else "样本不多时 LoRA 效果相当，且不易遗忘",
    )
    if not good:
        reason = Text(
            "LoRA keeps the base as it is; one base can serve several tasks",
            "LoRA 不改动基座，一个基座可服务多个任务",
        )
    return (3.5 if good else 3.0), reason


def strengths_of(
    candidate: Candidate,
    config: Architecture,
    request: Request,
    training: Training | None,
    inference: Inference,
) -> list[Text]:
    """Returns what else is worth knowing."""
    found = []
    if not candidate.preset and is_here(candidate.source):
        found.append(Text("comes with glmkit, nothing to download", "随 glmkit 自带，无需下载"))
    elif not candidate.preset:
        found.append(Text(
            "comes with releases of glmkit, but this installation lacks its weights: install a release, or train and ship it "
            "(recipes/glm-mini/train.sh, make ship-mini)",
            "随 glmkit 正式版附带，但本机安装中没有其权重：请安装正式版，或自行训练（recipes/glm-mini/train.sh，make ship-mini）"))  # fmt: skip
    if candidate.archive:
        found.append(Text(
            f"from the list of THUDM/GLM: {candidate.archive}, unpacked", f"见 THUDM/GLM 的模型列表：{candidate.archive}，解压后使用"
        ))  # fmt: skip
    if request.need.name == "poem" and not candidate.preset:
        found.append(Text("glmkit poem keeps form, rhyme and tones by constraint", "glmkit poem 以约束保证格律、押韵与平仄"))  # fmt: skip
    if training is not None and training.quantized and training.fits:
        found.append(Text(
            "the frozen base is kept in 4 bits while adapters are trained (QLoRA); of full size it does not fit",
            "训练适配器时冻结的基座以 4 位保存（QLoRA）；全精度则放不下"))  # fmt: skip
    if rounded(candidate, inference):
        bits, dtype = inference.way.dtype.removeprefix("int"), inference.way.dtype
        found.append(Text(
            f"answers with weights of {bits} bits (--dtype {dtype}), else it is too large or too slow here; docs/guides/speed.md says what that costs",
            f"推理时权重取 {bits} 位（--dtype {dtype}），否则在此放不下或太慢；代价见 docs/guides/speed.zh.md"))  # fmt: skip
    return found
