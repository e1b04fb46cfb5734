"""A comparison of a few thousand weights on a prepared corpus of invented lines."""

from __future__ import annotations

import json
from pathlib import Path

from pretrain_samples import write_prepared

from glmkit.comparison.settings import ObjectivesConfig
from glmkit.config import from_values


def write_labelled(path: Path, count: int = 60) -> Path:
    """Writes lines whose first words tell the label."""
    words = {"白云": "sky", "潮水": "sea"}
    pairs = list(words.items())
    records = [
        {"text": f"{pairs[n % 2][0]}明月花林{'天人海'[n % 3]}。", "label": pairs[n % 2][1]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def comparison(folder: Path, **sections) -> ObjectivesConfig:
    """Returns a comparison on `folder`/data, which is written if it is not there."""
    data = folder / "data"
    if not data.exists():
        write_prepared(data)
        write_labelled(folder / "labelled.jsonl")
    values = {
        "data": {"folder": str(data), "row_length": 48, "valid_rows": 4},
        "output_dir": str(folder / "out"),
        "seeds": [1],
        "model": {
            "hidden_size": 16,
            "num_layers": 1,
            "num_attention_heads": 2,
            "max_sequence_length": 48,
        },
        "trainer": {
            "max_steps": 6,
            "per_device_train_batch_size": 2,
            "learning_rate": 3e-3,
            "logging_steps": 3,
            "eval_steps": 6,
            "save_steps": 3,
            "use_cpu": True,
        },
        "tuning": {"steps": 3, "rows": 4},
        "classification": {
            "train": [str(folder / "labelled.jsonl")],
            "valid": [str(folder / "labelled.jsonl")],
        },
        "infilling": {"longest": 3, "valid_limit": 6},
        "generation": {"length": 4, "valid_limit": 5},
        **sections,
    }
    return from_values(ObjectivesConfig, values)
