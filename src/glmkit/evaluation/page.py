"""The report of an evaluation as one HTML file: numbers of all models side by side, pictures, what they answered.

In: `SuiteReport`s and their differences. Out: `report.html`, in English and Chinese, which needs nothing else. Pictures
are drawn in the page itself (`drawings`).
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glmkit.evaluation.differences import Difference, higher_is_better, keyed, outcome_of
from glmkit.evaluation.drawings import COLOURS, Bar, interval_plot, reliability_plot
from glmkit.evaluation.suite import SuiteReport
from glmkit.evaluation.tasks import Number
from glmkit.html_page import both, document, escaped, facts_table
from glmkit.whole_files import write_text

EXAMPLES = 12
"""Answers shown of each run."""

CHARACTERS = 240
"""Of an answer shown, at most."""

LABELS = 16
"""Most labels of a table of mistakes."""

_STYLE = """
table.numbers{margin:.5em 0}table.numbers td,table.numbers th{padding:.2em .9em .2em 0;text-align:left;border-bottom:1px solid #eee}
th{font-weight:600;color:#555;vertical-align:bottom}.overview td,.differences td,.numbers td:first-child{white-space:nowrap}
svg{max-width:100%;height:auto;font-family:inherit}.answers td{max-width:22em;white-space:pre-wrap;font-size:.92em}
.wrong{color:#b00020}.note{color:#555}.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em}
details{margin:.5em 0}summary{cursor:pointer;font-weight:600}.side{display:flex;flex-wrap:wrap;gap:2em}
"""


def write_report(
    path: Path,
    reports: Sequence[SuiteReport],
    paths: Mapping[str, str],
    differences: Mapping[str, Sequence[Difference]],
) -> None:
    """Writes the page.

    Args:
        path: Of the HTML file.
        reports: One for each model, with predictions.
        paths: Name of a model -> what was loaded.
        differences: Name of a run -> differences between models.
    """
    runs = list(dict.fromkeys(name for one in reports for name in one.runs))
    names = [one.model for one in reports]
    parts = [_models(reports, paths), f"<h2>{both('Overview', '总览')}</h2>", _overview(reports, runs)]  # fmt: skip
    for run in runs:
        having = [one for one in reports if run in one.runs]
        parts += _run(run, having, names, list(differences.get(run, [])))
    parts += [f"<h2>{both('What made these numbers', '结果的来源')}</h2>"]
    for one in reports:
        facts = {key: value for key, value in one.facts.items() if key != "versions"}
        parts.append(
            f"<details><summary>{html.escape(one.model)}</summary>"
            + facts_table(escaped({**facts, **one.facts.get("versions", {})}))
            + "</details>"
        )
    write_text(path, document(f"glmkit evaluate: {', '.join(names)}", parts, _STYLE))


def _models(reports: Sequence[SuiteReport], paths: Mapping[str, str]) -> str:
    rows = [
        [
            _dot(number) + html.escape(one.model),
            html.escape(paths.get(one.model, "")),
            f"{one.facts.get('parameters', 0):,}",
            html.escape(str(one.facts.get("weights_fingerprint", ""))[:12]),
        ]
        for number, one in enumerate(reports)
    ]
    head = [both("model", "模型"), both("loaded from", "来源"), both("parameters", "参数量"), both("weights", "权重指纹")]  # fmt: skip
    return _table(head, rows)


def _overview(reports: Sequence[SuiteReport], runs: Sequence[str]) -> str:
    """Returns the first metric of each run, the best number bold."""
    rows = []
    for run in runs:
        metric = next(iter(next(one.runs[run] for one in reports if run in one.runs)["metrics"]))
        cells = [_number(one.runs.get(run, {}).get("metrics", {}).get(metric)) for one in reports]
        rows.append(
            [
                f'<a href="#{html.escape(run)}">{html.escape(run)}</a>',
                _arrow(metric),
                *_cells(cells, metric),
            ]
        )
    head = [both("task: data", "任务: 数据"), both("metric", "指标")]
    head += [_dot(n) + html.escape(one.model) for n, one in enumerate(reports)]
    note = both(
        "In brackets: 95 % bootstrap intervals. ↑ more is better, ↓ less is better; the best number is bold, whether "
        "or not it is surely better.",
        "括号内为 95% 自助法置信区间。↑ 越高越好，↓ 越低越好；最好的数字加粗，不表示差异一定显著。",
    )
    return _table(head, rows, "overview") + f"<p class=note>{note}</p>"


def _run(
    run: str,
    reports: Sequence[SuiteReport],
    names: Sequence[str],
    differences: Sequence[Difference],
) -> list[str]:
    """Returns a run's section; `reports` are those that have it, `names` all models in their order."""
    results = {one.model: one.runs[run] for one in reports}
    first = next(iter(results.values()))
    metrics = list(dict.fromkeys(name for one in results.values() for name in one["metrics"]))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    numbers = {name: _number(one["metrics"].get(metrics[0])) for name, one in results.items()}
    bars = [
        Bar(name, one.value, one.low, one.high, colours[name])
        for name, one in numbers.items()
        if one is not None
    ]
    skipped = max(one["skipped"] for one in results.values())
    facts = both(
        f"{first['kind']}; {first['examples']:,} examples"
        + (f", {skipped:,} records could not be asked" if skipped else ""),
        f"{first['kind']}；{first['examples']:,} 例" + (f"，{skipped:,} 条无法提问" if skipped else ""),
    )  # fmt: skip
    predictions = {one.model: one.predictions.get(run, []) for one in reports}
    return [
        f'<h2 id="{html.escape(run)}">{html.escape(run)}</h2>',
        f"<p class=note>{facts} · {html.escape(str(first.get('data', '')))}</p>",
        f"<figure><figcaption>{_arrow(metrics[0])}</figcaption>{interval_plot(bars)}</figure>",
        _all_metrics(results, metrics),
        _differences(differences, metrics[0]),
        _groups(results, metrics[0]),
        _sureness(predictions, names) if first["kind"] in ("classification", "multiple_choice") else "",
        _mistakes(predictions) if first["kind"] == "classification" else "",
        _answers(predictions, metrics[0]),
    ]  # fmt: skip


def _all_metrics(results: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> str:
    rows = []
    for metric in metrics:
        cells = [_number(one["metrics"].get(metric)) for one in results.values()]
        rows.append([_arrow(metric), *_cells(cells, metric)])
    return _table([both("metric", "指标"), *map(html.escape, results)], rows)


def _differences(differences: Sequence[Difference], metric: str) -> str:
    """Returns a picture of the first metric's differences and a table of all."""
    if not differences:
        return ""
    bars = [
        Bar(f"{one.second} − {one.first}", one.value, one.low, one.high, "#444")
        for one in differences
        if one.metric == metric
    ]
    rows = [
        [
            html.escape(one.metric),
            html.escape(f"{one.second} − {one.first}"),
            f"{one.value:+.3f} ({one.low:+.3f} … {one.high:+.3f})",
            f"{one.p:.2g}",
            f"{one.adjusted_p:.2g}",
            html.escape(one.test),
            f"{one.examples:,}",
            both("no sure difference", "差异不显著")
            if one.winner is None
            else both(f"{one.winner} is better", f"{one.winner} 更好"),
        ]
        for one in differences
    ]
    head = [both("metric", "指标"), both("models", "模型"), both("difference (95 %)", "差（95%）"), "p", both("p, adjusted", "校正后 p"), both("test", "检验"), both("examples", "例数"), ""]  # fmt: skip
    note = both(
        "Paired: on the same examples. p is two-sided; adjusted (Holm) for the number of pairs of models, not for the "
        "number of metrics and tasks. “Better” means an adjusted p below 0.05.",
        "配对比较，在相同样本上进行。p 为双侧，并按模型对的数目作 Holm 校正（不按指标与任务数目校正）。“更好”指校正后 p < 0.05。",
    )
    picture = interval_plot(bars, zero_line=True) if bars else ""
    title = both("Differences", "差异")
    return f"<h3>{title}</h3>{picture}{_table(head, rows, 'differences')}<p class=note>{note}</p>"


def _groups(results: Mapping[str, Mapping[str, Any]], metric: str) -> str:
    groups = list(dict.fromkeys(name for one in results.values() for name in one["groups"]))
    rows = []
    for group in groups:
        cells = [_number(one["groups"].get(group, {}).get(metric)) for one in results.values()]
        size = max(one["group_sizes"].get(group, 0) for one in results.values())
        rows.append([html.escape(group), f"{size:,}", *_cells(cells, metric)])
    head = [_arrow(metric), both("examples", "例数"), *map(html.escape, results)]
    return _table(head, rows) if rows else ""


def _sureness(predictions: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str]) -> str:
    series = {}
    for name in names:
        outcomes = [outcome_of(one) for one in predictions.get(name, []) if "probabilities" in one]
        series[name] = [(one.probabilities.get(one.prediction, 0.0), one.prediction in one.references) for one in outcomes]  # fmt: skip
    if not any(series.values()):
        return ""
    title = both(
        "How often it is right (up) where it is so sure (right)",
        "有多大把握（横轴）时答对多少（纵轴）",
    )
    return f"<figure><figcaption>{title}</figcaption>{reliability_plot(series)}</figure>"


def _mistakes(predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns for each model how often a right label (row) got a predicted one (column)."""
    parts = []
    for name, some in predictions.items():
        counts = Counter((one["references"][0], one["prediction"]) for one in some)
        labels = sorted({label for pair in counts for label in pair})
        if not 1 < len(labels) <= LABELS:
            continue
        rows = [
            [html.escape(right), *(f"{counts[right, got]:,}" for got in labels)] for right in labels
        ]
        head = [html.escape(name) + both(" (right ↓, predicted →)", "（正确 ↓，预测 →）"), *map(html.escape, labels)]  # fmt: skip
        parts.append(_table(head, rows))
    return f"<div class=side>{''.join(parts)}</div>" if parts else ""


def _answers(predictions: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> str:
    """Returns answers to read: first those about which models differ, or a single model's wrong ones."""
    by_place: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    for name, some in predictions.items():
        for place, one in keyed([one for one in some if "prediction" in one]):
            by_place.setdefault(place, {})[name] = one
    if not by_place:
        return ""

    def interest(found: Mapping[str, Mapping[str, Any]]) -> float:
        scores = [float(one.get(metric, one["prediction"] in one["references"])) for one in found.values()]  # fmt: skip
        return max(scores) - min(scores) if len(predictions) > 1 else -scores[0]

    chosen = sorted(by_place, key=lambda place: -interest(by_place[place]))[:EXAMPLES]
    rows = []
    for place in chosen:
        found = by_place[place]
        references = next(iter(found.values()))["references"]
        row = [html.escape(Path(place[0]).name), html.escape(_cut(" / ".join(references)))]
        for name in predictions:
            answer = found.get(name)
            if answer is None:
                row.append("–")
                continue
            right = float(answer.get(metric, answer["prediction"] in references)) >= 1
            row.append(f"<span{'' if right else ' class=wrong'}>{html.escape(_cut(answer['prediction']))}</span>")  # fmt: skip
        rows.append(row)
    title = (
        both("Answers, those that differ most first", "回答示例，差别最大的在前")
        if len(predictions) > 1
        else both("Answers, the worst first", "回答示例，最差的在前")
    )
    head = [both("record", "记录"), both("right", "正确答案"), *map(html.escape, predictions)]
    table = _table(head, rows, "answers")
    return f"<details open><summary>{title}</summary>{table}</details>"


def _number(values: Mapping[str, Any] | None) -> Number | None:
    return None if values is None else Number(**values)


def _cells(cells: Sequence[Number | None], metric: str) -> list[str]:
    """Returns table cells, the best of several bold."""
    known = [cell.value for cell in cells if cell is not None]
    best = (max if higher_is_better(metric) else min)(known) if len(set(known)) > 1 else None
    return [
        "–" if cell is None else f"<b>{cell}</b>" if cell.value == best else str(cell)
        for cell in cells
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Returns a table; all cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="numbers {kind}"><tr>{top}</tr>{body}</table>'


def _arrow(metric: str) -> str:
    return html.escape(metric) + (" ↑" if higher_is_better(metric) else " ↓")


def _dot(number: int) -> str:
    return f'<span class=dot style="background:{COLOURS[number % len(COLOURS)]}"></span>'


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[:CHARACTERS] + "…"
