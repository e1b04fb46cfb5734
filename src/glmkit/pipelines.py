"""GLM in transformers' `pipeline`: the task `fill-blanks`, beside `text-generation`, which works without this.

In: a loaded GLM, or a glmkit folder, as transformers' pipelines take them. Out: a pipeline that fills all blanks of a text
as `glm.fill` does, to the token. Importing this module registers it.

    import glmkit.pipelines
    pipe = transformers.pipeline("fill-blanks", model="runs/mini/model")
    pipe("床前[MASK]光，疑是地上霜。", max_new_tokens=4)
"""

from __future__ import annotations

from typing import Any

from transformers import Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from glmkit.api import GLM
from glmkit.generation.results import Filled
from glmkit.model import GLMForConditionalGeneration

TASK = "fill-blanks"


class FillBlanksPipeline(Pipeline):
    """Fills every `[MASK]`, `[sMASK]` and `[gMASK]` of a text.

    Called with a text or a list of texts, and the keyword arguments of `GLM.fill` (`max_new_tokens`, `do_sample`, `seed`,
    `n` …). Returns a dictionary for each text: `text`, `blanks`, `scores` (of each blank, in nats), and with `n`
    `candidates`, each with `text`, `blanks`, `probability`.
    """

    _load_tokenizer = True  # type: ignore[assignment]
    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict, dict, dict]:
        return {}, settings, {}

    def preprocess(self, input_: str, **_: Any) -> dict[str, Any]:
        """Returns the text as it is: blanks are encoded by the engine."""
        return {"text": input_}

    def _forward(self, input_tensors: dict[str, Any], **settings: Any) -> Any:
        assert self.tokenizer is not None
        glm = GLM(self.model, self.tokenizer)  # type: ignore[arg-type]
        return {"filled": glm.fill(input_tensors["text"], **settings)}

    def postprocess(self, model_outputs: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Returns the result as plain values, as transformers' pipelines do."""
        filled: Filled = model_outputs["filled"]
        shown: dict[str, Any] = {
            "text": filled.text,
            "blanks": filled.blanks,
            "scores": filled.scores,
        }
        if filled.candidates:
            shown["candidates"] = [
                {"text": one.text, "blanks": one.blanks, "probability": one.probability}
                for one in filled.candidates
            ]
        return shown


PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=FillBlanksPipeline, pt_model=GLMForConditionalGeneration, type="text"
)
