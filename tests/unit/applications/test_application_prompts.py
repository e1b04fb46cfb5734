"""A question's prompt is what training read of the same record."""

from __future__ import annotations

import pytest

from glmkit.applications.prompts import question_prompt
from glmkit.blanks.layout import lay_out
from glmkit.generation.infill import fill
from glmkit.generation.settings import DecodingSettings
from glmkit.tasks.encoding import decode_sample, encode_record
from glmkit.tasks.rendering import question
from glmkit.tasks.task import load_task


@pytest.mark.parametrize(
    "text",
    ["房间很干净", "a clean room", "a <|endofpiece|> [gMASK] room [CLS]", "", "x\n\ny <mask>"],
)
def test_the_prompt_is_the_training_samples_part_a(glm, text: str):
    model, tokenizer = glm
    task, record = load_task("sentiment"), {"text": text, "label": 1}
    prompt = question_prompt(question(task, record, "here"), tokenizer)
    sample, *_ = encode_record(task, record, tokenizer, 200, "here")
    trained = decode_sample(sample, tokenizer.special_ids)
    assert len(prompt.mask_indices) == 1
    alone = lay_out(prompt.ids, [], tokenizer.special_ids.sop).input_ids
    assert trained.input_ids[: len(alone)].tolist() == alone.tolist()
    filled = fill(model, tokenizer, [prompt, prompt], DecodingSettings(max_new_tokens=2))
    assert filled[0].text == prompt.assemble(filled[0].blanks) == filled[1].text
