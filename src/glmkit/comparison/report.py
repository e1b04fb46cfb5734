"""The comparison's results: a table, what it says in words, a picture, and pages in English and Chinese.

In: the numbers of each objective, seed and task. Out: `ComparisonReport`, `results.json`, `results.md`, `results.zh.md`,
`results.png`. What is said is counted from the numbers, also where GLM loses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmkit.comparison.measuring import METRICS
from glmkit.comparison.settings import OBJECTIVES, TASKS
from glmkit.comparison.statistics import Estimate, difference, estimate
from glmkit.errors import missing_dependency
from glmkit.whole_files import write_figure, write_text

FIRST_METRIC = {"classification": "accuracy", "infilling": "nats", "generation": "nats"}
"""The metric by which a task is judged in words and in the picture."""

TASK_TITLES = {
    "classification": ("classification", "分类"),
    "infilling": ("infilling", "填空"),
    "generation": ("generation", "续写"),
}

_BUDGET = ("parameters", "tokens", "predicted_tokens", "epochs", "held_out_loss")
_BUDGET_TITLES = (
    ("parameters", "参数量"),
    ("tokens read", "读入词元"),
    ("tokens predicted", "预测词元"),
    ("passes over the corpus", "语料遍数"),
    ("own held-out loss", "自身目标的验证损失"),
)


@dataclass(frozen=True)
class ComparisonReport:
    """What a comparison found.

    Attributes:
        folder: Of the comparison.
        found: objective -> seed -> task (or "pretraining") -> metric -> value.
        settings: The configuration.
        environment: Versions and hardware.
        commit: Of glmkit, or "".
    """

    folder: Path
    found: dict[str, dict[int, dict[str, dict[str, float]]]]
    settings: dict[str, Any]
    environment: dict[str, Any]
    commit: str

    def values(self, objective: str, task: str, metric: str) -> dict[int, float]:
        """Returns the value of each seed that has one."""
        return {
            seed: tasks[task][metric]
            for seed, tasks in self.found.get(objective, {}).items()
            if metric in tasks.get(task, {})
        }

    def estimate(self, objective: str, task: str, metric: str) -> Estimate | None:
        """Returns the mean over seeds, or None where the objective has no such number."""
        values = self.values(objective, task, metric)
        return estimate(list(values.values())) if values else None

    def measured(self) -> Iterator[tuple[str, str]]:
        """Yields (task, metric) of what any objective has."""
        for task in TASKS:
            for metric in METRICS:
                if any(self.values(objective, task, metric) for objective in self.found):
                    yield task, metric

    def best(self, task: str, metric: str) -> str:
        """Returns the objective with the best mean."""
        means = {
            objective: one.mean
            for objective in self.found
            if (one := self.estimate(objective, task, metric)) is not None
        }
        more_is_better = METRICS[metric][1]
        return (max if more_is_better else min)(means, key=means.__getitem__)

    def table(self, language: str = "en") -> str:
        """Returns the results as a Markdown table: mean ± half of the 95 % interval, the best mean in bold."""
        which = 0 if language == "en" else 1
        head = (
            ("task", "任务")[which],
            ("metric (↑ more, ↓ less is better)", "指标（↑越大越好，↓越小越好）")[which],
        )
        lines = [
            "| " + " | ".join((*head, *self.found)) + " |",
            "|" + "---|" * (2 + len(self.found)),
        ]
        for task, metric in self.measured():
            title, more = METRICS[metric]
            best = self.best(task, metric)
            top = self.estimate(best, task, metric)
            assert top is not None
            cells = [
                _cell(self.estimate(objective, task, metric), top.mean) for objective in self.found
            ]
            name = f"{title[which]} {'↑' if more else '↓'}"
            lines.append(f"| {' | '.join((TASK_TITLES[task][which], name, *cells))} |")
        return "\n".join(lines)

    def budget(self, language: str = "en") -> str:
        """Returns what each objective was given, as a Markdown table."""
        which = 0 if language == "en" else 1
        lines = [
            "| " + " | ".join(("", *self.found)) + " |",
            "|" + "---|" * (1 + len(self.found)),
        ]
        for name, title in zip(_BUDGET, _BUDGET_TITLES, strict=True):
            cells = []
            for objective in self.found:
                one = self.estimate(objective, "pretraining", name)
                value = math.nan if one is None else one.mean
                counted = name in ("parameters", "tokens", "predicted_tokens")
                cells.append(f"{value:,.0f}" if counted else f"{value:.3f}")
            lines.append(f"| {' | '.join((title[which], *cells))} |")
        return "\n".join(lines)

    def findings(self, language: str = "en") -> list[str]:
        """Returns a sentence for each task: who is best, and who differs from it by more than seeds do."""
        which = 0 if language == "en" else 1
        sentences = []
        for task, metric in self.measured():
            if metric != FIRST_METRIC[task]:
                continue
            best = self.best(task, metric)
            worse: list[str] = []
            unclear: list[str] = []
            for objective in self.found:
                values = self.values(objective, task, metric)
                gap = difference(values, self.values(best, task, metric))
                if objective != best and gap is not None:
                    shown = f"{objective} ({gap.mean:+.3f} ± {_number(gap.half_width)})"
                    (worse if gap.excludes_zero else unclear).append(shown)
            title = METRICS[metric][0][which]
            parts = [
                (f"{TASK_TITLES[task][0]}, {title}: best {best}", f"{TASK_TITLES[task][1]}，{title}：最好的是 {best}")[which]
            ]  # fmt: skip
            if worse:
                parts.append(
                    (f"clearly worse: {', '.join(worse)}", f"明显更差：{'，'.join(worse)}")[which]
                )
            if unclear:
                parts.append(
                    (
                        f"not told apart from it by these seeds: {', '.join(unclear)}",
                        f"这些种子分不出高下：{'，'.join(unclear)}",
                    )[which]
                )
            sentences.append((". ", "。")[which].join(parts) + (".", "。")[which])
        return sentences

    def page(self, language: str = "en") -> str:
        """Returns the results page in Markdown; its picture is `results.png` beside it."""
        which = 0 if language == "en" else 1
        seeds = sorted({seed for runs in self.found.values() for seed in runs})
        facts = ", ".join(f"{name} {value}" for name, value in self.environment.items())
        steps, rows = self.settings["trainer"].get("max_steps"), self.settings["data"]["row_length"]
        title = ("GLM, BERT and GPT on the same budget", "相同预算下的 GLM、BERT 与 GPT")[which]
        about = (
            f"Every objective: {steps} steps of rows of {rows} tokens of the same texts in the same order, one tokenizer, the same "
            f"layers, width, optimizer and schedule, seeds {', '.join(map(str, seeds))}; then the same fine-tuning "
            f"({self.settings['tuning']['steps']} steps) for each task. ± is half of Student's 95 % interval over the seeds; "
            "differences are paired by seed.",
            f"每种目标：{steps} 步，每行 {rows} 个词元，同样的文本、同样的顺序、同一词表，层数、宽度、优化器与学习率调度相同，"
            f"种子 {'、'.join(map(str, seeds))}；随后每项任务以相同方式微调（{self.settings['tuning']['steps']} 步）。"
            "± 为各种子上 Student 95% 置信区间的一半；差值按种子配对。",
        )[which]
        headings = (("Results", "What it says", "Budget"), ("结果", "结论", "预算"))[which]
        said = "\n".join(f"- {one}" for one in self.findings(language))
        return "\n\n".join(
            (
                f"# {title}",
                f"{facts}; commit {self.commit or '-'}.",
                about,
                f"## {headings[0]}\n\n{self.table(language)}\n\n![{headings[0]}](results.png)",
                f"## {headings[1]}\n\n{said}",
                f"## {headings[2]}\n\n{self.budget(language)}\n",
            )
        )

    def save(self) -> None:
        """Writes `results.json`, `results.md`, `results.zh.md` and `results.png`."""
        values = {
            "found": self.found,
            "settings": self.settings,
            "environment": self.environment,
            "commit": self.commit,
            "families": {name: OBJECTIVES[name][0] for name in self.found},
        }
        text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
        write_text(self.folder / "results.json", text)
        write_text(self.folder / "results.md", self.page("en"))
        write_text(self.folder / "results.zh.md", self.page("zh"))
        draw(self, self.folder / "results.png")


def draw(report: ComparisonReport, path: Path) -> None:
    """Draws each task's first metric: a dot for each seed, the mean and its 95 % interval.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "the picture of the results", "train") from error
    shown = [pair for pair in report.measured() if FIRST_METRIC[pair[0]] == pair[1]]
    names = list(report.found)
    figure = Figure(figsize=(1.5 + 3.6 * len(shown), 0.9 + 0.5 * len(names)), dpi=120)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False, sharey=True)[0]
    for axes, (task, metric) in zip(panels, shown, strict=False):
        for place, objective in enumerate(names):
            one = report.estimate(objective, task, metric)
            if one is None:
                continue
            colour = "tab:blue" if OBJECTIVES[objective][0] == "glm" else "tab:orange"
            seeds = list(report.values(objective, task, metric).values())
            axes.plot(seeds, [place] * len(seeds), "o", color=colour, alpha=0.4, markersize=4)
            width = one.half_width if math.isfinite(one.half_width) else 0.0
            axes.errorbar(one.mean, place, xerr=width, fmt="|", color=colour, capsize=4)
        (title, _), more = METRICS[metric]
        axes.set_title(f"{task}\n{title}, {'more' if more else 'less'} is better", fontsize=9)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    write_figure(path, figure)


def as_json(report: ComparisonReport) -> dict[str, Any]:
    """Returns means and intervals for machines: task -> metric -> objective -> mean, half_width, seeds."""
    result: dict[str, Any] = {}
    for task, metric in report.measured():
        cells: Mapping[str, Estimate | None] = {
            name: report.estimate(name, task, metric) for name in report.found
        }
        result.setdefault(task, {})[metric] = {
            name: {
                "mean": one.mean,
                "half_width": one.half_width if math.isfinite(one.half_width) else None,
                "seeds": report.values(name, task, metric),
            }
            for name, one in cells.items()
            if one is not None
        }
    return result


def _cell(one: Estimate | None, best: float) -> str:
    if one is None:
        return "–"
    shown = f"{one.mean:.3f}"
    return f"{f'**{shown}**' if one.mean == best else shown} ± {_number(one.half_width)}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "?"
