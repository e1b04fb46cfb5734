"""A small corpus and a tokenizer of characters; run as a script it prepares, slowly, until it is killed."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

from glmkit.special_tokens import SpecialTokenIds


class CharacterTokenizer:
    """Ids are code points below 10,000 (others 9,999) + 10: no vocabulary, and no transformers, needed."""

    special_ids = SpecialTokenIds(cls=1, eos=0, pad=0, sop=2, eop=3, mask=4, smask=5, gmask=6)

    def __init__(self, delay=0.0, name="characters"):
        self.delay, self.name = delay, name

    def __call__(self, texts, **options):
        assert options["split_special_tokens"]
        assert not options["add_special_tokens"]
        time.sleep(self.delay)
        return {"input_ids": [[min(ord(c), 9_999) + 10 for c in text] for text in texts]}

    def __len__(self):
        return 10_010

    def fingerprint(self):
        return hashlib.sha256(self.name.encode()).hexdigest()

    def save_pretrained(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "tokenizer.json").write_text(self.name)


FILE_BYTES = 4000
"""More than a file of `write_corpus`, less than two."""


def write_corpus(folder: Path, files: int = 6) -> Path:
    """Writes `files` JSON-lines files of 40 poems each, some repeated within and between files."""
    folder.mkdir(parents=True)
    for number in range(files):
        records = [
            {"title": f"{i % 37}", "lines": [f"第{number // 2}卷", "ab" * (i % 37)]}
            for i in range(40)
        ]
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        (folder / f"{number}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


if __name__ == "__main__":
    from glmkit.corpus import pipeline
    from glmkit.tokens.prepare import prepare

    pipeline.PART_BYTES = FILE_BYTES

    corpus, out, workers = sys.argv[1:]
    prepare(corpus, out, CharacterTokenizer(delay=0.2), valid_ratio=0.2, workers=int(workers))
