"""`recipes/multimodal`: media say what their truth says, what is held out stays out, and text alone tells no answers."""

from __future__ import annotations

import importlib
import io
import json
import sys
import wave
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("PIL")
RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "multimodal"
MEDIA = ("image", "audio", "video")

ANSWERS = {
    "image": {"colour": 11, "shape": 6, "size": 2, "count": 4, "relation": 4, "exists": 2},
    "audio": {"pitch": 3, "timbre": 5, "count": 4, "sequence": 3, "tempo": 3, "digit": 10, "language": 2},
    "video": {"colour": 11, "shape": 6, "direction": 6, "speed": 2},
}  # fmt: skip
"""Kinds of questions with answers of a word, and how many answers there are."""


@pytest.fixture(scope="module")
def recipe() -> Iterator[SimpleNamespace]:
    """The scripts, imported as they import each other."""
    sys.path.insert(0, str(RECIPE))
    names = ("scenes", "sounds", "speech", "clips", "facts", "questions", "wording", "make_data")
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    sys.path.remove(str(RECIPE))


def run(recipe: SimpleNamespace, out: Path, *options: object) -> str:
    counts = ("--images", 6, "--sounds", 6, "--clips", 4, "--valid", 2, "--heldout", 2)
    arguments = map(str, (out, *counts, *options))
    return CliRunner().invoke(recipe.make_data.app, list(arguments), catch_exceptions=False).output


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def written(recipe: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("av")
    out = tmp_path_factory.mktemp("written")
    run(recipe, out)
    return out


@pytest.fixture(scope="module")
def asked(recipe: SimpleNamespace) -> dict[tuple[str, str], list[tuple[Any, list[dict[str, str]]]]]:
    """Many media with their questions, not drawn: by medium and split."""
    found = {}
    for number, medium in enumerate(MEDIA):
        for split, count in {"train": 300, "valid": 200, "heldout": 80}.items():
            balance, rng = recipe.questions.Balance(), np.random.default_rng([number, count])
            found[medium, split] = []
            for _ in range(count):
                truth = recipe.make_data.MEDIA[medium].sample(rng, split == "heldout")
                facts = recipe.facts.facts_of(truth, split == "heldout")
                number_asked = recipe.make_data.QUESTIONS[split]
                questions = recipe.questions.choose(facts, number_asked, balance, rng)
                found[medium, split].append((truth, questions))
    return found


# -- files


def test_the_same_seed_writes_the_same_files_with_any_number_of_processes(
    recipe, written, tmp_path
):
    run(recipe, tmp_path, "--processes", 2)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert all((written / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)
    assert len(files) == 9 + 6 + 6 + 4 + 3 * 4


def test_more_media_leave_the_first_as_they_are_and_another_seed_does_not(recipe):
    first = [*recipe.make_data.rows("image", "train", 3, seed=0)]
    assert [*recipe.make_data.rows("image", "train", 5, seed=0)][:3] == first
    assert [*recipe.make_data.rows("image", "train", 3, seed=1)] != first
    assert [*recipe.make_data.rows("image", "valid", 3, seed=0)] != first


def test_lines_name_files_and_have_as_many_questions_in_each_language(recipe, written):
    for medium in MEDIA:
        for split, number in recipe.make_data.QUESTIONS.items():
            for line in lines(written / f"{medium}.{split}.jsonl"):
                assert (written / line[medium]).is_file()
                languages = Counter(question["language"] for question in line["questions"])
                assert languages["zh"] <= number // 2
                assert languages["en"] <= number // 2
                assert sum(languages.values()) >= number - 4


def test_parquet_has_the_same_lines_with_the_bytes_of_the_files(recipe, written, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    run(recipe, tmp_path, "--format", "parquet")
    for medium in MEDIA:
        table = parquet.read_table(tmp_path / f"{medium}.train.parquet").to_pylist()
        for row, line in zip(table, lines(written / f"{medium}.train.jsonl"), strict=True):
            name = line[medium]
            assert row[medium] == {"bytes": (written / name).read_bytes(), "path": name}
            assert row["questions"] == line["questions"]
            assert {k: v for k, v in row["scene"].items() if v is not None} == {
                k: v for k, v in line["scene"].items() if v is not None
            }


def test_without_espeak_it_says_so_and_goes_on(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe.speech, "available", lambda: False)
    output = run(recipe, tmp_path, "--images", 0, "--clips", 0)
    assert "espeak-ng is not installed" in output
    assert {line["scene"]["type"] for line in lines(tmp_path / "audio.train.jsonl")} == {"beeps"}


def test_a_format_that_is_none_is_refused(recipe, tmp_path):
    result = CliRunner().invoke(recipe.make_data.app, [str(tmp_path / "x"), "--format", "csv"])
    assert result.exit_code == 2
    assert "parquet" in result.output
    assert not (tmp_path / "x").exists()


# -- what is held out, and what text alone tells


def pairs(truth: Any) -> list[tuple[str, str]]:
    """The pairs (colour, shape) of a picture or clip; of beeps (pitch, timbre) and (sequence, tempo)."""
    if hasattr(truth, "items"):
        return [item.pair for item in truth.items]
    if hasattr(truth, "movers"):
        return [mover.item.pair for mover in truth.movers]
    return [truth.tone, truth.melody] if hasattr(truth, "tone") else [("", truth.voice[-2:])]


def test_held_out_pairs_are_in_held_out_media_and_nowhere_else(recipe, asked):
    held_out = recipe.scenes.HELD_OUT | recipe.sounds.HELD_OUT_TONES
    held_out |= recipe.sounds.HELD_OUT_MELODIES | {("", v) for v in recipe.speech.HELD_OUT_VOICES}
    for (_, split), media in asked.items():
        for truth, _ in media:
            assert bool(held_out & set(pairs(truth))) == (split == "heldout"), truth
    shown = {pair for truth, _ in asked["image", "heldout"] for pair in pairs(truth)}
    assert shown >= recipe.scenes.HELD_OUT
    scenes = recipe.scenes
    incomplete, shapes = zip(*scenes.HELD_OUT, strict=True)
    assert sorted(shapes) == sorted(scenes.SHAPES)  # one each, of as many colours
    assert len(set(incomplete)) == len(scenes.SHAPES) < len(scenes.COLOURS)


def test_no_question_or_caption_of_training_puts_a_held_out_pair_into_words(recipe, asked):
    word = recipe.wording.word
    for medium in ("image", "video"):
        for split in ("train", "valid", "heldout"):
            said = "\n".join(
                f"{question['question']} {question['answer']}"
                for _, questions in asked[medium, split]
                for question in questions
                if question["kind"] in ("exists", "caption")
            )
            for colour, shape in recipe.scenes.HELD_OUT:
                chinese = word(colour, "zh") + word(shape, "zh")
                assert (f"{colour} {shape}" in said) == (split == "heldout")
                assert (chinese in said) == (split == "heldout")


def test_a_blind_guesser_is_near_chance(asked):
    """The answer that training gives most often to the same text (or else to the kind) is hardly ever right."""
    for medium, kinds in ANSWERS.items():
        seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for _, questions in asked[medium, "train"]:
            for question in questions:
                seen[question["question"]][question["answer"]] += 1
                seen[f"{question['kind']} {question['language']}"][question["answer"]] += 1
        right: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for _, questions in asked[medium, "valid"]:
            for question in questions:
                fallback = seen[f"{question['kind']} {question['language']}"]
                guess = seen.get(question["question"], fallback).most_common(1)[0][0]
                right[question["kind"]] += guess == question["answer"]
                total[question["kind"]] += 1
        for kind, number in kinds.items():
            noise = 3.5 * np.sqrt(number - 1) / number / np.sqrt(max(total[kind], 1))
            assert right[kind] <= total[kind] * (1 / number + 0.02 + noise), (medium, kind)
        assert right["caption"] < 0.1 * total["caption"]


def test_answers_are_equally_frequent(recipe, asked):
    for medium, kinds in ANSWERS.items():
        counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for _, questions in asked[medium, "train"]:
            for question in questions:
                counts[question["kind"], question["language"]][question["answer"]] += 1
        for kind, number in kinds.items():
            if kind in ("digit", "language") and not recipe.speech.available():
                continue
            for language in ("zh", "en"):
                answers = counts[kind, language]
                assert len(answers) == number, answers
                assert max(answers.values()) < 1.5 * answers.total() / number, answers


def test_questions_and_answers_are_short(asked):
    for media in asked.values():
        for _, questions in media:
            for question in questions:
                text, answer = question["question"], question["answer"]
                if question["language"] == "zh":
                    assert len(text) <= 14, text
                    assert question["kind"] == "caption" or len(answer) <= 4
                else:
                    assert len(text.split()) <= 9, text
                    assert question["kind"] == "caption" or len(answer.split()) <= 3


def test_questions_name_one_shape_only(asked):
    """Who is asked for the colour of the star sees one star; in both languages answers are the truth's."""
    for truth, questions in asked["image", "train"]:
        for question in questions:
            if question["kind"] == "colour" and question["language"] == "en":
                named = [
                    item for item in truth.items if f"the {item.shape}" in question["question"]
                ]
                named = named or list(truth.items)  # what colour is it?
                assert [item.colour for item in named] == [question["answer"]]


# -- media agree with their truth


def near(pixels: np.ndarray, colour: tuple[int, int, int], distance: float = 45) -> np.ndarray:
    return np.linalg.norm(pixels - np.array(colour, float), axis=-1) < distance


def test_pictures_have_the_shapes_of_their_truth(recipe):
    ndimage = pytest.importorskip("scipy.ndimage")
    scenes = recipe.scenes
    fill = {"circle": 0.785, "square": 0.67, "triangle": 0.45, "star": 0.42, "ring": 0.55, "cross": 0.56}  # fmt: skip
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scene = scenes.sample(rng, held_out=seed % 4 == 0)
        pixels = np.asarray(scenes.draw(scene, rng)).astype(float)
        assert pixels.shape == (64, 64, 3)
        for colour, rgb in scenes.COLOURS.items():
            items = [item for item in scene.items if item.colour == colour]
            regions, found = ndimage.label(near(pixels, rgb), np.ones((3, 3)))
            areas = ndimage.sum_labels(np.ones((64, 64)), regions, range(1, found + 1))
            assert (areas > 15).sum() == len(items), (seed, colour, areas)
            for item in items:
                y, x = np.mgrid[0:64, 0:64] + 0.5
                inside = np.hypot(x - item.x, y - item.y) < 0.6 * item.diameter
                area = (near(pixels, rgb) & inside).sum() / item.diameter**2
                assert fill[item.shape] * 0.6 < area < fill[item.shape] * 1.15, (seed, item, area)
                hole = not near(pixels, rgb)[int(item.y), int(item.x)]
                assert hole == (item.shape == "ring")


def test_relations_are_those_of_the_centres(recipe):
    item = recipe.scenes.Item
    scene = recipe.scenes.Scene(
        "plain",
        (item("red", "circle", "big", 15, 30, 20, 0), item("blue", "star", "big", 45, 34, 20, 0)),
    )
    said = {
        (fact.slots["shape"], fact.slots["other"]): fact.answer["en"]
        for fact in recipe.facts.facts_of(scene, held_out=False)
        if fact.form == "relation.shape"
    }
    assert said == {("circle", "star"): "left", ("star", "circle"): "right"}


def named(value: float, ranges: dict[str, tuple[float, float]]) -> str | None:
    [*names] = (name for name, (low, high) in ranges.items() if low <= value <= high)
    return names[0] if names else None


def test_beeps_of_training_are_at_any_pitch_and_tempo_but_never_in_a_held_out_pair(recipe):
    """Every timbre is heard between the pitches that have names; what has a name is called by it, and nothing else is."""
    sounds, rng = recipe.sounds, np.random.default_rng(5)
    between = Counter()
    for _ in range(1500):
        sound = sounds.sample(rng)
        if not isinstance(sound, sounds.Sound):
            continue
        pitches = {named(note, sounds.PITCHES) for note in sound.notes}
        assert sound.pitch == (pitches.pop() if len(pitches) == 1 else None)
        tempo = named(sound.interval, sounds.INTERVALS)
        assert sound.tempo == (tempo if sound.count > 1 else None)
        for note in sound.notes:
            assert (named(note, sounds.PITCHES), sound.timbre) not in sounds.HELD_OUT_TONES
            assert note * sounds.SECOND_PARTIAL[sound.timbre] < sounds.HIGHEST
            between[sound.timbre, int(2 * np.log2(note / 150))] += 1
        assert (sound.sequence, tempo) not in sounds.HELD_OUT_MELODIES or sound.count == 1
        assert sound.start + sound.interval * (sound.count - 1) + sound.length < sounds.SECONDS
        facts = {fact.kind for fact in recipe.facts.facts_of(sound, held_out=False)}
        assert ("pitch" in facts) == (sound.pitch is not None)
        assert ("tempo" in facts) == (sound.tempo is not None)
        assert ("sequence" in facts) == (sound.count > 1)
        assert ("caption" in facts) == (bool(sound.pitch) and (sound.count == 1 or bool(sound.tempo)))  # fmt: skip
    for timbre in sounds.TIMBRES:
        # Half octaves that held-out pairs fill.
        unheard = {"square": {4}, "noise": {7}}.get(timbre, set())
        heard = {step for name, step in between if name == timbre}
        assert set(range(8)) - heard == unheard


def test_beeps_have_the_notes_and_times_of_their_truth(recipe):
    sounds = recipe.sounds
    heard = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sound = sounds.sample(rng, held_out=seed % 4 == 0)
        if not isinstance(sound, sounds.Sound):
            continue
        with wave.open(io.BytesIO(sounds.wav_bytes(sounds.render(sound, rng)))) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        assert len(samples) == 32000
        loud = np.abs(samples).reshape(-1, 160).max(axis=1) > 0.2 * np.abs(samples).max()
        starts = np.flatnonzero(np.diff(np.r_[False, loud].astype(int)) == 1) / 100
        if sound.timbre != "noise":  # whose loudness falls and rises of itself
            assert len(starts) == sound.count
            assert np.allclose(np.diff(starts), sound.interval, atol=0.021)
        for index, note in enumerate(sound.notes):
            if sound.pitch is not None:
                low, high = sounds.PITCHES[sound.pitch]
                assert low <= note <= high
            start = round((sound.start + index * sound.interval) * 16000)
            beep = samples[start : start + round(sound.length * 16000)]
            power = np.abs(np.fft.rfft(beep * np.hanning(len(beep)), 16000)) ** 2  # 1 Hz apart
            tone = (
                np.arange(8001) @ power / power.sum() if sound.timbre == "noise" else power.argmax()
            )
            assert tone == pytest.approx(note, rel=0.25 if sound.timbre == "noise" else 0.02)
            first, second = (power[round(k * note) - 8 : round(k * note) + 9].max() for k in (1, 2))
            if sound.timbre in ("sine", "square", "saw"):
                assert (second > 0.1 * first) == (sound.timbre == "saw")
        heard.add((sound.timbre, sound.sequence))
        steps = np.sign(np.diff(sound.notes))
        if sound.sequence:
            assert set(steps) == {{"rising": 1, "falling": -1, "flat": 0}[sound.sequence]}
    assert len(heard) > 10


def test_digits_are_spoken_within_two_seconds(recipe):
    speech, sounds = recipe.speech, recipe.sounds
    if not speech.available():
        pytest.skip("espeak-ng is not installed")
    words = {
        digit: speech.speak(speech.Digit(digit, language, voice, 110, 50, 0.5), 16000)
        for digit, language, voice in ((7, "en", "en-us+f2"), (3, "zh", "cmn+m1"), (0, "zh", "cmn+m1"))
    }  # fmt: skip
    assert len({len(samples) for samples in words.values()}) == 3
    for samples in words.values():
        assert 0.1 * 16000 < len(samples) < 1.9 * 16000
        assert np.abs(samples).max() == pytest.approx(1)
    digit = speech.sample(np.random.default_rng(0))
    rendered = sounds.render(digit, np.random.default_rng(1))
    assert rendered.shape == (32000,)
    assert np.abs(rendered).max() / 32768 == pytest.approx(digit.loudness, abs=0.03)


def test_resampling_keeps_a_tone_and_drops_what_the_lower_rate_cannot_hold(recipe):
    time = np.arange(22050) / 22050
    tone = np.sin(2 * np.pi * 440 * time) + np.sin(2 * np.pi * 9000 * time)
    resampled = recipe.speech.resample(tone, 22050, 16000)
    assert len(resampled) == 16000
    spectrum = np.abs(np.fft.rfft(resampled))
    assert spectrum.argmax() == 440
    assert np.delete(spectrum, 440).max() < 1e-6 * spectrum[440]


def test_decoded_clips_move_as_their_truth_says(recipe):
    av = pytest.importorskip("av")
    clips = recipe.clips
    seen = set()
    for seed in range(24):
        rng = np.random.default_rng(seed)
        clip = clips.sample(rng, held_out=seed % 4 == 0)
        data = clips.mp4_bytes(clips.draw(clip, rng))
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            assert float(stream.average_rate) == 8
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert np.shape(frames) == (12, 64, 64, 3)
        y, x = np.mgrid[0:64, 0:64] + 0.5
        for mover in clip.movers:
            masks = near(np.array(frames, float), recipe.scenes.COLOURS[mover.item.colour], 75)
            masks = [  # far from the shape other things may be of a like colour
                mask & (np.hypot(x - cx, y - cy) < mover.item.diameter * 0.7)
                for mask, (cx, cy) in zip(masks, mover.way, strict=True)
            ]
            centres = np.array([(x[mask].mean(), y[mask].mean()) for mask in masks])
            assert np.abs(centres - mover.way).max() < 2, (seed, mover)
            shift = centres[-1] - centres[0]
            ahead = {"left": -shift[0], "right": shift[0], "up": -shift[1], "down": shift[1]}
            if mover.direction in ahead:
                along = ahead[mover.direction]
                assert along > 25 if mover.speed == "fast" else 8 < along < 20
                assert np.abs(shift).min() < 2
            else:
                assert np.abs(shift).max() < 2
                reach = np.abs(centres - centres[0]).max()
                assert reach > 11 if mover.direction == "back and forth" else reach < 2
            seen.add(mover.direction)
    assert seen == set(clips.DIRECTIONS)


def test_without_pyav_a_clip_says_what_to_install(recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="pip install"):
        recipe.clips.mp4_bytes([])
