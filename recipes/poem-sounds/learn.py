"""Learns `src/glmkit/applications/poetry/sounds.txt` again, from poems of Tang and Song (JSON lines, gzipped).

In: records with `kind` (诗, 词) and `lines`, in simplified characters. Out: the table. About a minute on one core.
    python recipes/poem-sounds/learn.py DATA/poems.train.jsonl.gz sounds.txt
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

from glmkit.applications.poetry.learning import learn_table


def main(poems: Path, out: Path) -> None:
    with gzip.open(poems, "rt", encoding="utf-8") as file:
        out.write_text(learn_table(map(json.loads, file)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
