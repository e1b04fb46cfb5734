"""When another family of models is the better answer, and why."""

from __future__ import annotations

from dataclasses import dataclass

from glmkit.choosing.judging import FEW
from glmkit.choosing.tasks import Need
from glmkit.choosing.words import Text

BASELINE = {"sentiment": 0.879, "topics": 0.866}
"""Accuracy of TF-IDF and logistic regression on `shared/data`, trained on all of it: docs/results/baselines_cpu_2026-11.md."""

ENOUGH_DIALOGUES = 10_000
"""Examples from which on a dialogue of one's own domain is a GLM's work too; our judgement."""


@dataclass(frozen=True)
class Advice:
    """Another family.

    Attributes:
        family: Which.
        better: Whether it is the better answer here; else it is worth a comparison.
        reason: Why.
        source: Where that is from.
    """

    family: Text
    better: bool
    reason: Text
    source: str


def other_families(
    need: Need, examples: int, languages: bool, tokens: int, positions: int
) -> list[Advice]:
    """Returns what other families offer, the better answers first.

    Args:
        need: The work.
        examples: Labelled records.
        languages: Whether some GLM has read the language.
        tokens: Of the longer of input and output.
        positions: The most that any GLM of the table has.
    """
    found = [*_of_work(need, examples), *_of_few_examples(need, examples)]
    if not languages:
        found.append(Advice(
            Text("a multilingual model", "多语言模型"), True,
            Text("no published GLM has read this language", "已发布的 GLM 都没有学过这种语言"), "README of THUDM/GLM"))  # fmt: skip
    if tokens > positions:
        found.append(Advice(
            Text("a model with a long context", "长上下文模型"), True,
            Text(f"texts of {tokens} tokens; no GLM of the table reads more than {positions}, what is beyond is cut or read in windows",
                 f"文本有 {tokens} 个词元；表中的 GLM 最多读 {positions} 个，超出部分只能截断或分段"), "max_sequence_length"))  # fmt: skip
    return sorted(found, key=lambda advice: not advice.better)


def _of_work(need: Need, examples: int) -> list[Advice]:
    if need.name == "translate":
        return [Advice(
            Text("a translation model (encoder-decoder)", "翻译模型（编码器-解码器）"), True,
            Text("it was trained on pairs of translations; no GLM has seen any", "它们用平行语料训练；GLM 没有见过"), "README of THUDM/GLM")]  # fmt: skip
    if need.name == "embed":
        return [Advice(
            Text("an embedding model (encoder)", "向量模型（编码器）"), True,
            Text("it was trained to put like texts near each other; GLM's states were not", "它们专门训练使相近文本的向量相近；GLM 没有"), "Sentence-BERT, arXiv 1908.10084")]  # fmt: skip
    if need.kind == "labels":
        encoder = Advice(
            Text("an encoder (BERT, RoBERTa)", "编码器模型（BERT、RoBERTa）"), examples >= FEW,
            Text("where nothing but labels is wanted: one pass without comparing the labels' words, no decoder to keep; GLM is worth it "
                 "if the same model also fills blanks or writes, or if there are hardly any examples",
                 "只需要标签时：一次前向即可，不必逐个比较标签词，也不需要解码；若同一模型还要填空、写作，或几乎没有样本，则用 GLM"),
            "BERT, arXiv 1810.04805; PET, arXiv 2001.07676")  # fmt: skip
        return [encoder, _linear(need)] if need.name in BASELINE else [encoder]
    if need.name == "chat":
        return [Advice(
            Text("a chat model (for example ChatGLM, which came of GLM)", "对话模型（例如由 GLM 发展而来的 ChatGLM）"), examples < ENOUGH_DIALOGUES,
            Text("open dialogue needs instructions and preferences to have been learnt; these GLMs only read texts. For one domain with "
                 "many dialogues of your own a fine-tuned GLM is smaller and yours",
                 "开放对话需要指令与偏好训练，这些 GLM 只读过文本；若只谈一个领域且有大量自己的对话，微调 GLM 更小、可自有"),
            "InstructGPT, arXiv 2203.02155")]  # fmt: skip
    return []


def _linear(need: Need) -> Advice:
    accuracy = BASELINE[need.name]
    return Advice(
        Text("TF-IDF with logistic regression", "TF-IDF 加逻辑回归"), False,
        Text(f"needs no GPU and trains in seconds; {accuracy:.3f} accuracy on this project's {need.name} data: what a model must beat",
             f"无需 GPU，几秒训练完；在本项目的 {need.name} 数据上准确率 {accuracy:.3f}，是模型应超过的基线"),
        "docs/results/baselines_cpu_2026-11.md")  # fmt: skip


def _of_few_examples(need: Need, examples: int) -> list[Advice]:
    if examples >= FEW or need.kind != "text":
        return []
    return [Advice(
        Text("an instruction-tuned model", "指令微调模型"), True,
        Text("without examples to learn from, the work must be told in words; these GLMs have learnt no instructions, glm-mini only its "
             "own tasks", "没有样本可学时只能用语言描述任务；这些 GLM 没学过指令，glm-mini 只会自带的任务"),
        "FLAN, arXiv 2109.01652")]  # fmt: skip
