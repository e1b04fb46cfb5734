"""An explanation as a page: one HTML file in English and Chinese, for light and dark screens, without network.

In: an `Explanation`. Out: HTML. The evidence lies in the page as JSON; its script draws it with text nodes alone, so
that nothing in a text can act. Attention maps are kept as bytes; too many of them are averaged, which the page says.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.explain.results import Attention, Evidence, Explanation, plain, probability, short
from glmkit.explain.segments import segments
from glmkit.html_page import both, document, escaped, facts_table
from glmkit.whole_files import write_text

MAX_WEIGHTS = 3_000_000
"""Attention weights in a page; beyond that heads are averaged, then layers."""


def write_page(path: Path, explanation: Explanation) -> None:
    """Writes the page."""
    write_text(path, page(explanation))


def page(explanation: Explanation, language: str | None = None) -> str:
    """Returns the page as HTML.

    Args:
        explanation: What it shows.
        language: "zh" or "en", shown first; by default the browser's.
    """
    budget = MAX_WEIGHTS // max(1, len(explanation.attention))
    maps = [_map(one, budget) for one in explanation.attention]
    data = {
        "evidence": [_evidence(explanation, one) for one in explanation.evidence],
        "attention": maps,
    }
    # In a script element only `<` could end it.
    inside = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    parts = [
        _head(explanation),
        "<div id=choices></div><div id=text></div><p id=detail class=detail></p>",
        f"<h2>{both('What counted most', '影响最大的部分')}</h2><div id=top></div><div id=sum></div>",
        f"<div id=examples-part><h2>{both('What each example of the prompt adds', '提示中每个示例的贡献')}</h2>"
        + _note("Score with the whole prompt minus score without the example, in nats.", "完整提示的得分减去去掉该示例后的得分，单位 nats。")
        + "<div id=examples></div></div>",
        f"<div id=steps-part><h2>{both('What else might have been written', '每一步的其他候选')}</h2>"
        + _note("Each token written, its probability, and the likeliest tokens in its place.", "每个写出的词元、其概率，以及该处最可能的词元。")
        + "<div id=steps></div></div>",
        f"<div id=lens-part><h2>{both('What each layer would write', '各层会写什么')}</h2>"
        + _note("Each layer's state through the last LayerNorm and the head (logit lens): its likeliest token; the stronger the colour, the surer. Bold: what was written. The top row is the model's output.", "各层状态经最后的 LayerNorm 与输出头（logit lens）后最可能的词元；颜色越深越确定，粗体为实际写出的词元，首行即模型输出。")
        + "<div id=lens></div></div>",
        f"<div id=attention-part><h2>{both('Attention', '注意力')}</h2>"
        + _note("Rows look at columns. Dashed lines part A (the text, upper left) from B (what is written). The upper right is empty: part A never sees part B. Colours grow with the square root of the weight.", "行看向列。虚线分开 A 部分（文本，左上）与 B 部分（所写内容）；右上为空，因为 A 部分看不到 B 部分。颜色随权重的平方根加深。")
        + _averaged(maps, explanation.attention)
        + "<div id=attention></div></div>",
        _limits(explanation),
        f'<script type="application/json" id=evidence>{inside}</script>',
        f"<script>{_resource('page.js')}</script>",
    ]  # fmt: skip
    title = f"glmkit explain: {short(explanation.filled)}"
    return document(title, parts, _resource("page.css"), language)


def _head(explanation: Explanation) -> str:
    lines = []
    for one in explanation.evidence:
        share = probability(one.probability)
        if explanation.kind == "label":
            lines.append(both(f"Why “{one.name}”? Its log-odds against all other labels are {one.score:+.3f} nats; its probability is {share}.", f"为什么是“{one.name}”？它相对其他标签的对数几率为 {one.score:+.3f} nats，概率 {share}。"))  # fmt: skip
        else:
            number = one.name.removeprefix("blank ")
            lines.append(both(f"Blank {number}: “{one.content}”, log-probability {one.score:.3f} nats ({share}), its end included.", f"空白 {number}：“{one.content}”，对数概率 {one.score:.3f} nats（{share}），含结束符。"))  # fmt: skip
    if len(explanation.probabilities) > 1:
        shares = " · ".join(f"{label} {share:.1%}" for label, share in explanation.probabilities.items())  # fmt: skip
        lines.append(html.escape(shares))
    return "".join(f"<p class=note>{line}</p>" for line in lines)


def _limits(explanation: Explanation) -> str:
    text = _note(
        "How to read this: values say what this model's score depends on when words are replaced by the baseline, not what is true and not what caused the words in the world. Attention shows where information may flow, not what is done with it. Methods may disagree.",
        "如何解读：数值表示用基线替换词语时该模型的得分如何变化，既不表示事实，也不表示现实中的因果。注意力只显示信息可能的流向，而非如何被使用。各方法可能不一致。",
    )  # fmt: skip
    facts = {
        name: value for name, value in explanation.facts.items() if name not in ("fields", "media")
    }
    table = facts_table(escaped({name: _fact(value) for name, value in facts.items()}))
    title = both("What made this", "如何得出")
    return f"<h2>{both('Limits', '局限')}</h2>{text}<details><summary>{title}</summary>{table}</details>"


def _evidence(explanation: Explanation, one: Evidence) -> dict[str, Any]:
    found = plain(one)
    found["segments"] = [[some.text, some.unit, some.blank] for some in segments(explanation, one)]
    return found


def _map(attention: Attention, budget: int) -> dict[str, Any]:
    """Returns a map as the page has it: bytes of the square root of each weight, base64."""
    weights = attention.weights
    if weights.size > budget:
        weights = weights.mean(1, keepdims=True)
    if weights.size > budget:
        weights = weights.mean(0, keepdims=True)
    small = np.round(255 * np.sqrt(np.clip(weights, 0, 1))).astype(np.uint8)
    return {
        "tokens": list(attention.tokens),
        "prefix": attention.prefix_length,
        "layers": weights.shape[0],
        "heads": weights.shape[1],
        "weights": base64.b64encode(small.tobytes()).decode("ascii"),
    }


def _averaged(maps: Sequence[dict[str, Any]], attention: Sequence[Attention]) -> str:
    """Returns the note that says what of the maps are means, empty where nothing is."""
    pairs = list(zip(maps, attention, strict=True))
    if any(made["layers"] < one.weights.shape[0] for made, one in pairs):
        return _note("There are too many weights for a page: heads and layers are averaged.", "权重过多，已对注意力头与层取平均。")  # fmt: skip
    if any(made["heads"] < one.weights.shape[1] for made, one in pairs):
        return _note("There are too many weights for a page: heads are averaged.", "权重过多，已对注意力头取平均。")  # fmt: skip
    return ""


def _note(english: str, chinese: str) -> str:
    return f"<p class=note>{both(english, chinese)}</p>"


def _fact(value: Any) -> str:
    return " | ".join(map(str, value)) if isinstance(value, list) else str(value)


def _resource(name: str) -> str:
    return (resources.files("glmkit.explain") / name).read_text(encoding="utf-8")
