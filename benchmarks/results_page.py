"""Result pages: `docs/results/<theme>_<hardware>_<yyyy-mm>.md` and the same as JSON, with command, versions, commit."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glmkit.evaluation.provenance import versions

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def environment() -> dict[str, str]:
    """Returns date, processor, versions and commit, for the head of a page."""
    found = versions(("numpy", "torch", "transformers", "scikit-learn", "rouge-score", "sacrebleu"))
    return {
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} cores of {processor()}",
        "python": found["python"],
        **{name: one for name, one in found.items() if one},
        "commit": commit(),
    }


def processor() -> str:
    """Returns the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """Returns the short hash of the commit at work, with + where files were changed; "" outside git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=9", "--exclude=*"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def metrics_text(metrics: dict[str, float]) -> str:
    """Returns metrics as one cell of a table."""
    return ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())


def metrics_table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """Returns rows with `metrics` as a Markdown table: their keys in `columns`, then the metrics."""
    return "\n".join(
        (
            "| " + " | ".join((*columns, "metrics")) + " |",
            "|" + "---|" * (len(columns) + 1),
            *(
                "| " + " | ".join((*(str(one[name]) for name in columns), metrics_text(one["metrics"]))) + " |"
                for one in rows
            ),
        )
    )  # fmt: skip


def write_table_page(
    theme: str,
    title: str,
    introduction: str,
    table: str,
    values: dict[str, Any],
    command: str,
    hardware: str = "cpu",
    folder: Path = RESULTS,
) -> Path:
    """Writes the page and the JSON file; returns the page's path.

    Args:
        theme: First part of the name.
        title: Heading.
        introduction: Text above the table.
        table: In Markdown.
        values: What the JSON file holds, with `environment` and `seconds`.
        command: What made it.
        hardware: Second part of the name.
        folder: Where to write.
    """
    facts = values["environment"]
    software = ", ".join(f"{name} {facts[name]}" for name in facts if name not in ("date", "hardware", "commit"))  # fmt: skip
    lines = [
        f"# {title}",
        "",
        f"{facts['date']}, {facts['hardware']}, shared; {software}; commit {facts['commit']}; {values['seconds']} s.",
        introduction.strip(),
        "",
        "```sh",
        command,
        "```",
        "",
        table,
        "",
    ]
    page = folder / f"{theme}_{hardware}_{facts['date'][:7]}.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    page.with_suffix(".json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")  # fmt: skip
    return page
