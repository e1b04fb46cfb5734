"""Steps of somebody else's: counted by their reasons, and told what they must return."""

from __future__ import annotations

import pytest

pytest.importorskip("datatrove")

from glmkit.corpus.pipeline import CleanStep, PipelineDocument, Tally
from glmkit.corpus.steps.rules import Step
from glmkit.corpus.steps.settings import Steps
from glmkit.errors import ConfigError


def clean(step: Step, *texts: str) -> tuple[list[str], Tally]:
    tally = Tally()
    documents = [PipelineDocument(text, f"a:{n}") for n, text in enumerate(texts)]
    kept = CleanStep([step], Steps(examples=9), tally).run(documents)
    return [document.text for document in kept], tally


def test_what_a_step_drops_is_counted_by_its_reason():
    step = Step("shouting", drop=lambda text: "capitals" if text.isupper() else None)
    kept, tally = clean(step, "QUIET!", "quiet")
    assert kept == ["quiet"]
    assert tally.accounts.steps["shouting"].dropped == {"capitals": 1}
    assert [one["reason"] for one in tally.accounts.examples] == ["capitals"]


def test_what_a_step_changes_goes_on():
    kept, tally = clean(Step("quotes", change=lambda text: text.replace("“", "「")), "“a", "b")
    assert kept == ["「a", "b"]
    assert tally.accounts.steps["quotes"].changed == 1


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Step("lists", drop=str.isupper), "'lists' returned True; it must return the reason"),
        (Step("lists", drop=lambda text: ""), "'lists' returned ''; it must return the reason"),
        (Step("quotes", change=lambda text: None), "returned None; it must return the changed text"),
    ],
)  # fmt: skip
def test_steps_are_told_what_to_return(step: Step, said: str):
    with pytest.raises(ConfigError, match=said):
        clean(step, "QUIET!")


@pytest.mark.parametrize("functions", [{}, {"change": str, "drop": str}])
def test_a_step_has_one_function(functions: dict):
    with pytest.raises(ConfigError, match="the step 'x' needs one function, either change or drop"):
        Step("x", **functions)
