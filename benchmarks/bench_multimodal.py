"""What a model sees and hears: questions about held-out pictures, sounds and clips, by what they ask for.

    python benchmarks/bench_multimodal.py --model FOLDER --data FOLDER [--limit 500] [--run FOLDER] [--smoke] [--save [THEME]]

The data are those of `recipes/multimodal/make_data.py`. Two splits: `valid` (new media) and `heldout` (combinations that training never
had, such as a red star; what is asked is about them). Answers are written greedily and count where they are right to the character.

    seen     with the medium
    blind    the same model asked the same questions with a grey picture, silence or a grey clip instead
    guesser  the most frequent answer to just this question's text in the training data

Prints a table, then one JSON line. `--save` also draws right and wrong answers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from results_page import RESULTS, environment, write_table_page

import glmkit
from glmkit.applications.prompts import question_prompt
from glmkit.generation import infill
from glmkit.generation.settings import DecodingSettings
from glmkit.multimodal.media import Medium, as_medium
from glmkit.tasks.records import read_questions
from glmkit.tasks.rendering import Question, expand, question
from glmkit.tasks.task import load_task

KINDS = ("image", "audio", "video")
SPLITS = ("valid", "heldout")
TASK = load_task("multimodal")
TOGETHER = 32


def asked(path: Path, limit: int | None) -> list[tuple[str, str, str, Question]]:
    """Returns (kind of question, language, text, question) of a file's records, of the first `limit` media."""
    found, media = [], set()
    for record, where in read_questions(TASK, path):
        media.add(where)
        if limit is not None and len(media) > limit:
            break
        for one in expand(TASK, record, where):
            found.append(
                (one["kind"], one["language"], one["turns"][0], question(TASK, one, where))
            )
    return found


def guesser(path: Path) -> dict[str, str]:
    """Returns question -> its most frequent answer in the training data."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            for one in json.loads(line)["questions"]:
                counts[one["question"]][one["answer"]] += 1
    return {text: some.most_common(1)[0][0] for text, some in counts.items()}


def answers(glm: Any, questions: list[Question]) -> list[str]:
    """Returns what the model writes."""
    found = []
    settings = DecodingSettings(max_new_tokens=48)
    for start in range(0, len(questions), TOGETHER):
        prompts = [question_prompt(one, glm.tokenizer, glm.media) for one in questions[start : start + TOGETHER]]  # fmt: skip
        filled = infill.fill(glm.model, glm.tokenizer, prompts, settings, batch_size=TOGETHER)
        found += [one.blanks[0] for one in filled]
    return found


@cache
def blank_media() -> dict[str, Medium]:
    """Returns for each kind a medium that shows or says nothing."""
    return {
        "image": as_medium("image", np.full((64, 64, 3), 128, np.uint8)),
        "audio": as_medium("audio", (np.zeros(2 * 16_000, np.float32), 16_000)),
        "video": as_medium("video", (np.full((12, 64, 64, 3), 128, np.uint8), 8)),
    }


def blinded(one: Question) -> Question:
    """Returns a question with blank media in the place of its own."""
    blank = blank_media()
    return replace(one, media=tuple(blank[medium.kind] for medium in one.media))


def measure(glm: Any, data: Path, limit: int | None) -> dict[str, Any]:
    """Returns medium -> split -> kind of question -> counts, and the answers."""
    results: dict[str, Any] = {}
    for medium in KINDS:
        if medium not in glm.media.kinds or not (data / f"{medium}.valid.jsonl").is_file():
            continue
        usual = guesser(data / f"{medium}.train.jsonl")
        for split in SPLITS:
            some = asked(data / f"{medium}.{split}.jsonl", limit)
            ask = [one for *_, one in some]
            seen, blind = answers(glm, ask), answers(glm, [blinded(one) for one in ask])
            rows = [
                {
                    "kind": kind,
                    "language": language,
                    "question": text,
                    "right": one.answer,
                    "seen": with_it,
                    "blind": without,
                    "guesser": usual.get(text, ""),
                    "medium": str(one.media[0].source),
                }
                for (kind, language, text, one), with_it, without in zip(
                    some, seen, blind, strict=True
                )
            ]
            results.setdefault(medium, {})[split] = rows
            print(f"{medium} {split}: {share(rows, 'seen'):.1%} of {len(rows)}", file=sys.stderr)
    return results


def share(rows: list[dict[str, Any]], who: str) -> float:
    """Returns the share of right answers."""
    return sum(one[who] == one["right"] for one in rows) / max(1, len(rows))


def table(results: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the table as Markdown, and its numbers."""
    lines = [
        "| medium | asked for | valid: seen | blind | guesser | heldout: seen | blind | guesser | questions |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    numbers: dict[str, Any] = {}
    for medium, splits in results.items():
        kinds = sorted({one["kind"] for rows in splits.values() for one in rows} - {"caption"})
        attributes = [
            ("all but captions", set(kinds)),
            *((kind, {kind}) for kind in kinds),
            ("caption", {"caption"}),
        ]
        for name, wanted in attributes:
            cells = []
            own = numbers.setdefault(medium, {}).setdefault(name, {})
            for split in SPLITS:
                rows = [one for one in splits[split] if one["kind"] in wanted]
                own[split] = {who: share(rows, who) for who in ("seen", "blind", "guesser")} | {"questions": len(rows)}  # fmt: skip
                cells += [f"{own[split][who]:.1%}" if rows else "–" for who in ("seen", "blind", "guesser")]  # fmt: skip
            counts = " / ".join(str(own[split]["questions"]) for split in SPLITS)
            shown = f"**{name}**" if name.startswith("all") else name
            lines.append(f"| {medium} | {shown} | {' | '.join(cells)} | {counts} |")
    return "\n".join(lines), numbers


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws pictures (of clips the first, middle and last frame, of sounds a spectrogram) with right and wrong answers."""
    import matplotlib
    from PIL import Image

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from glmkit.explain.fonts import families
    from glmkit.multimodal.clips import read_clip
    from glmkit.multimodal.images import read_image
    from glmkit.multimodal.sounds import read_sound

    plt.rcParams["font.family"] = families("中文")
    columns = 6
    figure, axes = plt.subplots(
        2 * len(results), columns, figsize=(2.3 * columns, 4.6 * len(results))
    )
    for number, (medium, splits) in enumerate(results.items()):
        rows = [one for split in SPLITS for one in splits[split] if one["kind"] != "caption"]
        for line, right in enumerate((True, False)):
            some = [one for one in rows if (one["seen"] == one["right"]) == right]
            some = some[:: max(1, len(some) // columns)][:columns]
            for column in range(columns):
                axis = axes[2 * number + line][column]
                axis.axis("off")
                if column >= len(some):
                    continue
                one = some[column]
                given = as_medium(medium, one["medium"])  # type: ignore[arg-type]
                if medium == "image":
                    axis.imshow(read_image(given))
                elif medium == "video":
                    frames, _ = read_clip(given, 3)
                    axis.imshow(np.concatenate([np.asarray(frame) for frame in frames], 1))
                else:
                    axis.specgram(read_sound(given, 16_000), Fs=16_000, NFFT=512, noverlap=256)
                    axis.set_ylim(0, 4000)
                mark = "" if right else f"\n({one['right']})"
                axis.set_title(f"{one['question']}\n{one['seen']}{mark}", fontsize=8, color="#1a7f37" if right else "#b42318")  # fmt: skip
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    with Image.open(path) as drawn:  # a third of the bytes; colours are asked for, and have to stay
        small = drawn.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
    small.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="media of each file")
    parser.add_argument("--run", type=Path, help="the run's folder, for how long training took")
    parser.add_argument("--smoke", action="store_true", help="4 media of each")
    parser.add_argument("--save", nargs="?", const="multimodal", metavar="THEME", help="write docs/results/THEME_….md")  # fmt: skip
    arguments = parser.parse_args()
    begun = time.perf_counter()
    glm = glmkit.load(arguments.model)
    results = measure(glm, arguments.data, 4 if arguments.smoke else arguments.limit)
    shown, numbers = table(results)
    print(shown)
    values: dict[str, Any] = {
        "model": arguments.model,
        "accuracy": numbers,
        "environment": environment(),
        "seconds": round(time.perf_counter() - begun),
    }
    if arguments.run is not None:
        report = json.loads((arguments.run / "report.json").read_text(encoding="utf-8"))
        kept = (
            "method",
            "parameters",
            "trained_parameters",
            "samples",
            "steps",
            "after",
            "seconds",
        )
        values["training"] = {name: report.get(name) for name in kept}
    if arguments.save:
        drawn = f"{arguments.save}_cpu_{date.today():%Y-%m}.png"
        draw(results, RESULTS / drawn)
        introduction = (
            "Questions in Chinese and English about pictures, sounds and clips that training never had. *valid*: new ones of the same kinds; "
            "*heldout*: combinations that training never had (six of the 66 pairs of colour and shape, such as a red star; two of the fifteen pairs of "
            "pitch and timbre, one of the nine of melody and tempo; three of 15 voices), and questions about them. An answer counts where it is right to the "
            "character. *blind*: the same model, asked with a grey picture, silence or a grey clip; *guesser*: the most frequent answer to just this question in the "
            "training data.\n\n![Right answers in green, wrong ones in red with the right one below]("
            + drawn
            + ")"
        )
        command = f"python benchmarks/bench_multimodal.py --model {Path(arguments.model).name} --data data --save {arguments.save}"
        write_table_page(arguments.save, "What a GLM sees and hears", introduction, shown, values, command)  # fmt: skip
    print(json.dumps(values, ensure_ascii=False, default=str))


if __name__ == "__main__":
    sys.exit(main())
