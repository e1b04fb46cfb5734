"""Where a run's numbers go while it runs: `log.jsonl`, TensorBoard, `report.html`, the logger, a progress bar's function."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from glmkit import __version__
from glmkit.errors import missing_dependency
from glmkit.training.page import write_page

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, all steps, newest numbers) after every step."""

_TITLES = {"eval_loss": "held-out loss", "loss": "loss", "tokens_per_second": "tokens/s"}


_RESUMES = "resumes.jsonl"
_SECONDS_BETWEEN_PAGES = 30.0
"""A page is drawn in about a second."""


class RunLog(TrainerCallback):
    """Writes each log line; after a resume the lines are those of one uninterrupted run.

    Args:
        run: Folder of the run.
        progress: For a progress bar.
        settings: The configuration, for the page.

    Raises:
        MissingDependencyError: TensorBoard is not installed.
    """

    def __init__(
        self, run: Path, progress: Progress | None = None, settings: Mapping[str, Any] | None = None
    ):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_dependency("tensorboard", "pretraining", "train") from error
        self._make_writer = SummaryWriter
        self._run, self._progress = run, progress
        self._newest: dict[str, float] = {}
        self._settings = settings or {}
        self._page_drawn = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        if (self._run / "log.jsonl").exists():
            now = datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds")
            with (self._run / _RESUMES).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, "time": now}) + "\n")
        # Lines behind the checkpoint that the run goes on from are written again.
        self._file = (self._run / "log.jsonl").open("w", encoding="utf-8")
        for line in state.log_history:
            self._write(line)
        self._writer = self._make_writer(
            str(self._run / "tensorboard"), purge_step=state.global_step + 1
        )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        self._newest.update(logs)
        self._write(state.log_history[-1])
        for name, value in logs.items():
            group = "held-out" if name.startswith("eval_") else "train"
            self._writer.add_scalar(
                f"{group}/{name.removeprefix('eval_')}", value, state.global_step
            )
        shown = (f"{title} {logs[name]:,.4g}" for name, title in _TITLES.items() if name in logs)
        logger.info("step %d of %d: %s", state.global_step, state.max_steps, ", ".join(shown))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._progress is not None and state.is_world_process_zero:
            self._progress(state.global_step, state.max_steps, self._newest)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        late = time.monotonic() - self._page_drawn > _SECONDS_BETWEEN_PAGES
        if late and state.is_world_process_zero:
            self.draw(state.log_history, state.max_steps)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            self._file.close()
            self._writer.close()

    def draw(self, history: list[dict[str, Any]], max_steps: int) -> None:
        """Writes `report.html` of the log lines so far."""
        resumes = self._run / _RESUMES
        lines = resumes.read_text(encoding="utf-8").splitlines() if resumes.exists() else []
        write_page(
            self._run / "report.html",
            self._run.name,
            history,
            summary=_summary(history, max_steps),
            settings=self._settings,
            environment=environment(),
            resumes=[json.loads(line) for line in lines],
        )
        self._page_drawn = time.monotonic()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def environment() -> dict[str, Any]:
    """Returns the software's versions and the hardware."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        **versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "CPU cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "GPUs": f"{cards} x {torch.cuda.get_device_name()}" if cards else "none",
        "processes": os.environ.get("WORLD_SIZE", "1"),
    }


def versions() -> dict[str, str]:
    """Returns the versions of what a run depends on."""
    return {
        "glmkit": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _summary(history: list[dict[str, Any]], max_steps: int) -> dict[tuple[str, str], Any]:
    """Returns what a page says first: names in English and Chinese, and values."""
    newest: dict[str, Any] = {}
    for line in history:
        newest |= line
    rows = (
        ("steps", "步数", "step", f"{newest.get('step', 0):,} / {max_steps:,}"),
        ("passes over the corpus", "语料遍数", "epoch", "{:.2f}"),
        ("tokens read", "已读词元", "tokens", "{:,}"),
        ("tokens predicted", "已预测词元", "predicted_tokens", "{:,}"),
        ("training loss", "训练损失", "loss", "{:.4f}"),
        ("held-out loss", "验证损失", "eval_loss", "{:.4f}"),
        ("tokens per second", "每秒词元", "tokens_per_second", "{:,.0f}"),
        ("model FLOPs utilisation", "算力利用率（MFU）", "mfu", "{:.1%}"),
        ("waiting for data", "等待数据", "data_wait_ratio", "{:.2%}"),
        ("padding", "填充", "padding_ratio", "{:.2%}"),
        ("peak memory (GiB)", "内存峰值（GiB）", "peak_memory_gib", "{:.2f}"),
        ("skipped steps", "跳过的步数", "skipped_steps", "{}"),
    )
    return {
        (english, chinese): form.format(newest[key])
        for english, chinese, key, form in rows
        if key in newest
    }
