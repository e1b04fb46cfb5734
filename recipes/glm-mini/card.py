"""What a run recorded, and the model card made of it.

In: a run's `log.jsonl` and `config.yaml`, an asset's `config.json`, the results of `glmkit evaluate`. Out: `TrainingFacts`
(kept as `training.json`, so that the card can be rendered again) and MODEL_CARD.md, MODEL_CARD.zh.md from the templates
`card.en.md` and `card.zh.md`, in which every `$name` must be known.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any

import torch
import transformers
import yaml
from measured import metrics_section

import glmkit
from glmkit.checkpoint.quantized import FILE as QUANTIZED
from glmkit.checkpoint.quantized import NativeWeights
from glmkit.errors import DataError
from glmkit.model.configuration import GLMConfig

HERE = Path(__file__).parent
CARDS = {"en": "MODEL_CARD.md", "zh": "MODEL_CARD.zh.md"}
FACTS = "training.json"
ASKED_FOR = {
    "all but captions": "全部（不含描述）", "colour": "颜色", "count": "数目", "exists": "有没有", "relation": "方位", "shape": "形状", "size": "大小", "caption": "描述",
}  # fmt: skip
"""What is asked of a picture, in Chinese."""
SETTINGS = ("optim", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "per_device_train_batch_size", "seed")  # fmt: skip
"""Of `trainer:`, those that the card names."""


@dataclass(frozen=True)
class Stage:
    """One training run.

    Attributes:
        steps: Optimizer steps.
        tokens: Tokens read, masks and start markers included, padding not.
        predicted_tokens: Of them, those that were predicted.
        epochs: Passes over the text.
        tokens_per_second: Median of the log lines.
        row_length: Tokens in a row.
        trainer: Some of the recipe's `trainer:`.
        objectives: The recipe's `objectives:`.
        tasks: Names of the tasks mixed in.
        task_share: Most of a batch that they may take.
        average: Decay of the average of the weights, or None.
        held_out: The last held-out losses, nats per predicted token, by name.
    """

    steps: int
    tokens: int
    predicted_tokens: int
    epochs: float
    tokens_per_second: float
    row_length: int
    trainer: dict[str, Any]
    objectives: dict[str, Any]
    tasks: list[str]
    task_share: float
    average: float | None
    held_out: dict[str, float]

    @property
    def hours(self) -> float:
        """Time of computing, from tokens and speed: interruptions do not count."""
        return self.tokens / self.tokens_per_second / 3600


@dataclass(frozen=True)
class TrainingFacts:
    """What the card says of the training.

    Attributes:
        hardware: In words.
        versions: Of the software that made the asset.
        stages: The runs, in their order.
    """

    hardware: str
    versions: str
    stages: list[Stage]

    @classmethod
    def of(cls, runs: Sequence[Path], hardware: str) -> TrainingFacts:
        """Reads what runs recorded; a folder with facts, such as an asset that a run began with, stands for its runs.

        Raises:
            DataError: As `read_run`.
        """
        versions = f"glmkit {glmkit.__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
        stages = [
            stage
            for run in runs
            for stage in (
                cls.load(run / FACTS).stages if (run / FACTS).is_file() else [read_run(run)]
            )
        ]
        return cls(hardware, versions, stages)

    def save(self, path: Path) -> None:
        """Writes the facts as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> TrainingFacts:
        """Reads what `save` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        stages = [Stage(**stage) for stage in values.pop("stages")]
        return cls(**values, stages=stages)


def read_run(run: Path) -> Stage:
    """Reads what a pretraining run recorded; a run that was ended early counts as far as its log goes.

    Raises:
        DataError: It is no such run, or has not logged a step.
    """
    for name in ("log.jsonl", "config.yaml"):
        if not (run / name).is_file():
            raise DataError(f"{run} has no {name}; give the folder of a pretraining run (--run)")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    training = [line for line in lines if "tokens" in line]
    if not training:
        raise DataError(f"{run / 'log.jsonl'} has no line of training yet")
    recipe = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    last = training[-1]
    evaluated = [line for line in lines if "eval_loss" in line]
    losses = evaluated[-1] if evaluated else {}
    return Stage(
        steps=lines[-1]["step"],
        tokens=int(last["tokens"]),
        predicted_tokens=int(last["predicted_tokens"]),
        epochs=last["epoch"],
        tokens_per_second=statistics.median(line["tokens_per_second"] for line in training),
        row_length=recipe["data"]["row_length"],
        trainer={name: recipe["trainer"][name] for name in SETTINGS if name in recipe["trainer"]},
        objectives=recipe["objectives"],
        tasks=sorted(recipe["tasks"]["folders"]),
        task_share=recipe["tasks"]["max_share"],
        average=recipe["average"]["decay"],
        held_out={
            name.removeprefix("eval_"): value
            for name, value in losses.items()
            if name.startswith("eval_") and name.endswith("loss")
        },
    )


def write_cards(asset: Path, facts: TrainingFacts, results: dict[str, Any] | None) -> None:
    """Renders both cards beside the weights.

    Args:
        asset: Folder with `config.json` and the weights.
        facts: Of the training.
        results: Of the evaluation; None leaves a line that says so.
    """
    for language, name in CARDS.items():
        template = Template((HERE / f"card.{language}.md").read_text(encoding="utf-8"))
        values = card_values(asset, facts, results, language)
        (asset / name).write_text(template.substitute(values), encoding="utf-8")


def write_vision_cards(asset: Path, results: dict[str, Any]) -> None:
    """Renders both cards of the adapter that sees.

    Args:
        asset: Its folder.
        results: Of `benchmarks/bench_multimodal.py`.
    """
    scores = results["accuracy"]["image"]
    questions = f"{scores['all but captions']['valid']['questions']:,}"
    for language, name in CARDS.items():
        rows = [
            f"| {ASKED_FOR[what] if language == 'zh' else what} | {one['valid']['seen']:.0%} | {one['valid']['blind']:.0%} | {one['heldout']['seen']:.0%} |"
            for what, one in scores.items()
        ]
        template = Template((HERE / f"vision.{language}.md").read_text(encoding="utf-8"))
        values = {"rows": "\n".join(rows), "questions": questions}
        (asset / name).write_text(template.substitute(values), encoding="utf-8")


def card_values(
    asset: Path, facts: TrainingFacts, results: dict[str, Any] | None, language: str
) -> dict[str, str]:
    """Returns the templates' values."""
    config = GLMConfig.from_pretrained(asset)
    weights = weights_file(asset)
    return {
        "parameters": _count(config.num_parameters, language),
        "layers": str(config.num_layers),
        "width": str(config.hidden_size),
        "heads": str(config.num_attention_heads),
        "positions": str(config.max_sequence_length),
        "vocabulary": f"{config.vocab_size:,}",
        "dtype": _stored_as(asset, config),
        "megabytes": f"{weights.stat().st_size / 1e6:.1f}",
        "hardware": facts.hardware,
        "duration": _duration(sum(stage.hours for stage in facts.stages), language),
        "tokens": _count(sum(stage.tokens for stage in facts.stages), language),
        "predicted": _count(sum(stage.predicted_tokens for stage in facts.stages), language),
        "stages": stages_table(facts.stages, language),
        "metrics": metrics_section(results, language),
        "versions": facts.versions,
    }


def weights_file(folder: Path) -> Path:
    """Returns the file of a model's weights, quantized or not."""
    (found,) = folder.glob("*.safetensors")
    return found


def _stored_as(asset: Path, config: GLMConfig) -> str:
    if weights_file(asset).name == QUANTIZED:
        return NativeWeights.load(asset).quantization
    return str(config.dtype).removeprefix("torch.")


def _duration(hours: float, language: str) -> str:
    """Returns a time in hours, below one hour in minutes."""
    if hours < 1:
        return f"{hours * 60:.0f} {'分钟' if language == 'zh' else 'minutes'}"
    return f"{hours:.1f} {'小时' if language == 'zh' else 'hours'}"


def _count(number: int, language: str) -> str:
    """Returns a large number in millions, in Chinese in 亿 (hundred millions) or 万 (ten thousands)."""
    if language == "en":
        return f"{number / 1e6:,.1f} million"
    return f"{number / 1e8:.2f} 亿" if number >= 1e8 else f"{number / 1e4:,.0f} 万"


def stages_table(stages: list[Stage], language: str) -> str:
    """Returns the runs as rows of a Markdown table, one column each."""
    names = {
        "en": ("optimizer steps", "rows a step × tokens a row", "epochs of the text", "tokens/s", "optimizer", "learning rate, schedule", "objectives: token / sentence / document", "tasks mixed in", "average of the weights", "held-out loss, the last logged (nats a predicted token; the rows differ between stages)"),
        "zh": ("优化步数", "每步行数 × 每行词元", "文本遍数", "词元/秒", "优化器", "学习率、调度", "目标权重：token / sentence / document", "混入的任务", "权重的滑动平均", "验证损失，日志中的最后一次（nats，每个被预测词元；各阶段所用的行不同）"),
    }[language]  # fmt: skip
    header = {"en": "stage", "zh": "阶段"}[language]
    columns = [_stage_column(stage, language) for stage in stages]
    lines = [
        f"| {header} | " + " | ".join(str(n + 1) for n in range(len(stages))) + " |",
        "|---" * (len(stages) + 1) + "|",
    ]
    lines += [f"| {name} | {' | '.join(row)} |" for name, *row in zip(names, *columns, strict=True)]
    return "\n".join(lines)


def _stage_column(stage: Stage, language: str) -> list[str]:
    trainer, weights = stage.trainer, stage.objectives
    at_most = {"en": " (at most {:.0%})", "zh": "（至多 {:.0%}）"}[language].format(
        stage.task_share
    )
    tasks = f"{', '.join(stage.tasks)}{at_most}" if stage.tasks else "–"
    return [
        f"{stage.steps:,}",
        f"{trainer['per_device_train_batch_size']} × {stage.row_length}",
        f"{stage.epochs:.2f}",
        f"{stage.tokens_per_second:,.0f}",
        str(trainer.get("optim", "adamw")),
        f"{trainer['learning_rate']:g}, {trainer['lr_scheduler_type']}",
        " / ".join(f"{weights[f'{name}_weight']:g}" for name in ("token", "sentence", "document")),
        tasks,
        "–" if stage.average is None else f"{stage.average:g}",
        ", ".join(f"{name.removesuffix('_loss')} {value:.3f}" for name, value in stage.held_out.items()) or "–",
    ]  # fmt: skip
