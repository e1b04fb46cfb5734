"""The figures of a preparation's report."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from glmkit.tokens.prepare_figures import save_figures

matplotlib = pytest.importorskip("matplotlib")

REPORT = SimpleNamespace(
    lengths={"read": {3: 4, 5: 9, 8: 2}, "kept": {3: 1, 5: 7}},
    languages={"Han": 120, "Latin": 40, "Cyrillic": 40},
    dropped={"too short": 5, "duplicate": 300, "line": 2},
)


def test_they_depend_on_the_numbers_alone(tmp_path):
    """A corpus that is prepared again, in a program with a style of its own, has the same files."""
    plain = [path.read_bytes() for path in save_figures(REPORT, tmp_path / "figures")]
    with matplotlib.rc_context({"font.size": 17, "axes.facecolor": "red", "axes.xmargin": 0.4}):
        styled = [path.read_bytes() for path in save_figures(REPORT, tmp_path / "figures")]
    assert len(plain) == 3
    assert styled == plain
