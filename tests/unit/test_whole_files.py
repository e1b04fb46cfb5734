"""Files that appear whole: also where a text has what UTF-8 cannot hold."""

from __future__ import annotations

import json

from glmkit.whole_files import write_text


def test_half_of_a_surrogate_pair_comes_back_from_json(tmp_path):
    """Such a text, cut within a face, ended an evaluation in a UnicodeEncodeError when all was asked."""
    values = {"text": "好\ud83d", "face": "😀"}
    write_text(tmp_path / "values.json", json.dumps(values, ensure_ascii=False))
    assert json.loads((tmp_path / "values.json").read_text(encoding="utf-8")) == values
    assert [path.name for path in tmp_path.iterdir()] == ["values.json"]
