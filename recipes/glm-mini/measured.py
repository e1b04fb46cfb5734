"""What evaluation wrote -> the card's table.

In: the JSON of `make evaluate-mini` (beside baselines and goals), or `results.json` of `glmkit evaluate --tasks`. Out: Markdown in
one language.
"""

from __future__ import annotations

from typing import Any

from glmkit.evaluation.suite import SuiteReport
from glmkit.evaluation.tasks import Number

NOTHING = {
    "en": "Not measured yet: `make evaluate-mini`, then `ship.py card --results …`.",
    "zh": "尚未评测：先运行 `make evaluate-mini`，再运行 `ship.py card --results …`。",
}
COMPARED = {
    "en": "| task | data | examples | metric | glm-mini (95 % interval) | baseline | goal | met |",
    "zh": "| 任务 | 数据 | 例数 | 指标 | glm-mini（95% 置信区间） | 基线 | 目标 | 达到 |",
}
PLAIN = {
    "en": "| task | data | examples | metric | value (95 % interval) |",
    "zh": "| 任务 | 数据 | 例数 | 指标 | 值（95% 置信区间） |",
}
MADE_BESIDE = {
    "en": "Made by `make evaluate-mini` on the `valid` splits, seed {seed}. The baselines were trained on the same `train` splits and counted on the "
    "same records (`benchmarks/baselines.py`). Bits, perplexities and calibration errors are better when lower; BLEU is from 0 to 100. Where no "
    "goal was set, the baseline is the goal. **Goals met: {met} of {goals}.**",
    "zh": "由 `make evaluate-mini` 在 `valid` 部分上得出，种子 {seed}。基线在相同的 `train` 部分上训练，在相同的记录上计数（`benchmarks/baselines.py`）。"
    "比特数、困惑度与校准误差越低越好；BLEU 取值 0 到 100。没有另设目标之处，基线就是目标。**达到的目标：{goals} 个中 {met} 个。**",
}
MADE_ALONE = {
    "en": "Made by `glmkit evaluate --tasks`, seed {seed}; intervals by bootstrap over examples.",
    "zh": "由 `glmkit evaluate --tasks` 得出，种子 {seed}；区间为对样本的自助法估计。",
}
LOWER = ("bits_per_character", "perplexity", "calibration_error")
"""Beginnings of metrics that are better when lower."""


def metrics_section(results: dict[str, Any] | None, language: str) -> str:
    """Returns the measured table, or a line that says that nothing has been measured yet."""
    if results is None:
        return NOTHING[language]
    if "lines" in results:
        header = COMPARED
        met = [line["met"] for line in results["lines"] if line["met"] is not None]
        made = MADE_BESIDE[language].format(seed=results["seed"], met=sum(met), goals=len(met))
        rows = [_compared(line) for line in results["lines"]]
        rows.insert(0, "|" + "---|" * 8)
    else:
        header = PLAIN
        made = MADE_ALONE[language].format(seed=results["seed"])
        rows = SuiteReport(results["model"], results["runs"]).table().splitlines()[1:]
    return "\n".join([made, "", header[language], *rows])


def _compared(line: dict[str, Any]) -> str:
    number = Number(line["model"], line["low"], line["high"])
    baseline = "–" if line["baseline"] is None else f"{line['baseline']:.3f} ({line['method']})"
    goal = "–"
    if line["goal"] is not None:
        goal = f"{'≤' if line['metric'].startswith(LOWER) else '≥'} {line['goal']:.3f}"
    met = {None: "", True: "✓", False: "✗"}[line["met"]]
    cells = (line["task"], line["data"], f"{line['examples']:,}", line["metric"], number, baseline, goal, met)  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"
