"""Records about media in the formats in which they are published, through the reader that training uses; and those that fit none."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from glmkit.errors import ConfigError, DataError, MediaError
from glmkit.special_tokens import FIRST_MEDIA_ID, MEDIA_MARKERS
from glmkit.tasks.encoding import encode_record
from glmkit.tasks.prepare import prepare_task
from glmkit.tasks.records import drawn_share, read_questions
from glmkit.tasks.rendering import expand, question
from glmkit.tasks.task import Task, load_task
from glmkit.training.finetune_data import read_task
from glmkit.training.finetune_settings import TaskData
from media_samples import ROWS, clip_bytes, image_bytes, wav_bytes
from understanding_samples import random_glm

TASK = load_task("multimodal")

LLAVA = [
    {
        "id": "000000033471",
        "image": "images/1.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "A square."},
            {"from": "human", "value": "Which colour?"},
            {"from": "gpt", "value": "Red."},
        ],
    },
    {
        "id": "2",
        "image": "images/2.png",
        "conversations": [
            {"from": "human", "value": "图里有什么？\n<image>"},
            {"from": "gpt", "value": "方块"},
        ],
    },
]
COCO = {
    "info": {"year": 2014},
    "images": [{"id": 7, "file_name": "images/1.png"}, {"id": 8, "file_name": "images/2.png"}],
    "annotations": [
        {"image_id": 8, "id": 1, "caption": "A red square. "},
        {"image_id": 7, "id": 2, "caption": "红色方块"},
    ],
}
MSRVTT = {
    "videos": [{"video_id": "video1", "split": "train"}],
    "sentences": [{"video_id": "video1", "caption": "a ball moves", "sen_id": 0}],
}
MESSAGES = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "images/1.png"}},
                    {"type": "text", "text": "What <|image|> is it?"},
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                ],
            },
            {"role": "assistant", "content": "Red."},
        ]
    }
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("data")
    (place / "images").mkdir()
    for number in (1, 2):
        (place / f"images/{number}.png").write_bytes(image_bytes())
    (place / "a.wav").write_bytes(wav_bytes())
    (place / "video1.mp4").write_bytes(clip_bytes())
    return place


def write(path: Path, value) -> Path:
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in value)
    else:
        text = json.dumps(value, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


def asked(path: Path) -> list[tuple[str, str, list[str]]]:
    """Returns of each question of a file the text before the blank, the answer, and where its media lie."""
    found = []
    for record, where in read_questions(TASK, path):
        for one in expand(TASK, record, where):
            made = question(TASK, one, where)
            files = [str(medium.source.relative_to(path.parent)) for medium in made.media]
            found.append((made.before, made.answer, files))
    return found


def test_llava(folder):
    image = MEDIA_MARKERS["image"]
    expected = [
        (f"A: {image}What is it?\nB:", "A square.", ["images/1.png"]),
        (f"A: {image}What is it?\nB: A square.\nA: Which colour?\nB:", "Red.", ["images/1.png"]),
        (f"甲：图里有什么？{image}\n乙：", "方块", ["images/2.png"]),
    ]
    for name, value in (("llava.json", LLAVA), ("llava.jsonl", LLAVA)):
        assert asked(write(folder / name, value)) == expected


def test_coco_captions(folder):
    assert asked(write(folder / "captions_train2014.json", COCO)) == [
        ("<|image|>A: Describe the picture.\nB:", "A red square.", ["images/2.png"]),
        ("<|image|>甲：描述这张图片。\n乙：", "红色方块", ["images/1.png"]),
    ]


def test_msr_vtt(folder):
    assert asked(write(folder / "msrvtt.json", MSRVTT)) == [
        ("<|video|>A: Describe the clip.\nB:", "a ball moves", ["video1.mp4"])
    ]


def test_a_list_of_transcripts(folder):
    expected = [
        ("<|audio|>甲：这段声音说了什么？\n乙：", "开灯", ["a.wav"]),
        ("<|audio|>A: What is said?\nB:", "light on", ["a.wav"]),
    ]
    records = [{"audio": "a.wav", "text": "开灯"}, {"audio": "a.wav", "transcript": "light on"}]
    assert asked(write(folder / "speech.jsonl", records)) == expected
    (folder / "speech.csv").write_text("audio,text\na.wav,开灯\na.wav,light on\n", "utf-8")
    assert asked(folder / "speech.csv") == expected


def test_messages_with_parts(folder):
    [(record, where)] = read_questions(TASK, write(folder / "messages.jsonl", MESSAGES))
    [one] = expand(TASK, record, where)
    made = question(TASK, one, where)
    # What a user wrote that looks like a marker is plain text.
    assert made.before == "A: Be brief.\n<|image|>What < |image|> is it?<|audio|>\nB:"
    assert [medium.kind for medium in made.media] == ["image", "audio"]
    assert made.media[1].source == b"RIFF"


def test_our_own(folder):
    records = [
        {"image": "images/1.png", "turns": ["a?", "b", "c?", "d"]},
        {"image": "images/1.png", "question": "什么？", "answer": "方块"},
        {"image": "images/1.png", "questions": [{"question": "a?", "answer": "b"}, {"question": "c?", "answer": "d", "language": "en"}]},
        {"image": ["images/1.png", "images/2.png"], "question": "<|image|> or <|image|>?", "answer": "first"},
        {"image": ["images/1.png", "images/2.png"], "audio": "a.wav", "question": "which?", "answer": "x"},
        {"question": "no picture?", "answer": "none"},
    ]  # fmt: skip
    found = asked(write(folder / "own.jsonl", records))
    assert [(one[0], one[1]) for one in found] == [
        ("<|image|>A: a?\nB:", "b"),
        ("<|image|>A: a?\nB: b\nA: c?\nB:", "d"),
        ("<|image|>甲：什么？\n乙：", "方块"),
        ("<|image|>A: a?\nB:", "b"),
        ("<|image|>A: c?\nB:", "d"),
        ("A: <|image|> or <|image|>?\nB:", "first"),
        ("<|image|><|image|><|audio|>A: which?\nB:", "x"),
        ("A: no picture?\nB:", "none"),
    ]
    assert found[6][2] == ["images/1.png", "images/2.png", "a.wav"]


def test_parquet_with_bytes(tmp_path):
    """As `datasets` writes pictures and sounds."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {
            "image": {"bytes": image_bytes(), "path": "1.png"},
            "question": "什么？",
            "answer": "方块",
        },
        {"image": {"bytes": image_bytes(), "path": None}, "question": "what?", "answer": "square"},
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = [question(TASK, one, where) for record, where in read_questions(TASK, tmp_path / "a.parquet") for one in expand(TASK, record, where)]  # fmt: skip
    assert [one.answer for one in found] == ["方块", "square"]
    assert [one.media[0].source for one in found] == [image_bytes()] * 2
    assert found[0].media[0].key == found[1].media[0].key


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"image": "images/1.png"}, "it needs image, audio or video, and what is said of it"),
        ({"text": "a line"}, "it needs image, audio or video"),
        ({"image": "images/1.png", "question": "a?"}, "there is no 'answer'"),
        ({"image": "images/1.png", "turns": "a"}, "turns must be a list of texts, it is a str"),
        ({"image": "images/1.png", "conversations": [{"from": "human"}]}, "there is no 'value'"),
        ({"image": "images/1.png", "conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]}, "turn 0 is of the assistant, where the user should speak"),
        ({"image": "images/1.png", "questions": ["a?"]}, "docs/guides/multimodal.md"),
        ({"messages": [{"role": "user", "content": [{"type": "film"}]}]}, "there are text, image_url"),
        ({"annotations": [{"image_id": 3, "caption": "a"}], "images": []}, "there is no 3"),
        ({"image": "images/none.png", "question": "a?", "answer": "b"}, "No such file"),
        ({"image": "http://a.b/c.png", "question": "a?", "answer": "b"}, "is an address in the network"),
        ({"image": 3, "question": "a?", "answer": "b"}, "a int is no image"),
        ({"image": "images/1.png", "question": "<|image|>a<|image|>?", "answer": "b"}, r"2 <\|image\|> and 1 image"),
        ({"image": ["images/1.png", "images/1.png"], "question": "<|image|>a?", "answer": "b"}, r"1 <\|image\|> and 2 image"),
        ({"question": "<image>a?", "answer": "b"}, r"1 <\|image\|> and 0 image"),
    ],
)  # fmt: skip
def test_records_that_do_not_fit_are_refused_before_training(folder, record: dict, said: str):
    """With file and line, and what to do."""
    good = {"image": "images/1.png", "question": "a?", "answer": "b"}
    path = write(folder / "bad.jsonl", [good, record])
    glm = random_glm(128)
    data = TaskData(train=[str(path)], valid_ratio=0.5)
    with pytest.raises((DataError, MediaError), match=said) as found:
        read_task("m", TASK, data, glm.tokenizer, 96, 0, lambda one: ROWS[one.kind])
    assert "bad.jsonl:2" in str(found.value)


def test_a_model_that_reads_no_media(folder):
    path = write(folder / "one.jsonl", [{"image": "images/1.png", "question": "a?", "answer": "b"}])
    with pytest.raises(MediaError, match="to a model that reads no media; train one with"):
        read_task("m", TASK, TaskData(train=[str(path)]), random_glm(128).tokenizer, 96, 0)


def test_all_that_is_asked_about_a_picture_is_on_one_side(folder, tmp_path):
    """Also where its questions stand in several lines, and wherever the folder lies."""
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(image_bytes())
    records = [
        {"image": f"{number % 40}.png", "question": f"{number}?", "answer": "a"}
        for number in range(160)
    ]
    path = write(tmp_path / "a.jsonl", records)
    glm = random_glm(128)
    found = read_task("m", TASK, TaskData(train=[str(path)], valid_ratio=0.3), glm.tokenizer, 96, 0, lambda one: ROWS[one.kind])  # fmt: skip
    train, valid = ({one.media[0].source.name for one in side} for side in (found.train, found.valid))  # fmt: skip
    assert not train & valid
    assert len(found.train) + len(found.valid) == 160
    assert 4 <= len(valid) <= 22
    shares = []
    for file in (image_bytes(), image_bytes()):  # equal bytes, not one object
        [(record, _)] = [({"image": [file], "turns": ["a", "b"]}, "")]
        shares.append(drawn_share(TASK, record))
    assert shares[0] == shares[1]


FIELDS = {"photo": "a picture", "sound": "a sound", "first": "a text", "then": "a text", "label": "which"}  # fmt: skip
WHICH = Task(
    name="which",
    kind="classification",
    metric="accuracy",
    fields=FIELDS,
    media={"photo": "image", "sound": "audio"},
    label="label",
    labels={"a": {"zh": "好"}, "b": {"zh": "快"}},
    patterns={"zh": ["{media}{first}，{then}[MASK]", "[MASK]：{first}{media}{then}"]},
)


def test_samples_have_their_media_as_their_patterns_place_them(tmp_path):
    """The bug: with weights of classes a sample had no media any more."""
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(image_bytes())
        (tmp_path / f"{number}.wav").write_bytes(wav_bytes())
    glm = random_glm(128)

    def read(task: Task, then: str, first: str = "什么"):
        records = [
            {"photo": f"{n}.png", "sound": f"{n}.wav", "first": first, "then": then, "label": "ab"[n % 2]}
            for n in range(20)
        ]  # fmt: skip
        path = write(tmp_path / "a.jsonl", records)
        data = TaskData(train=[str(path)], valid_ratio=0.2, class_weights="balanced")
        return read_task("w", task, data, glm.tokenizer, 96, 0, lambda one: ROWS[one.kind])

    for then, kinds in (("很快", ["image", "audio"]), ("<|audio|>快<|image|>", ["audio", "image"])):
        found = read(WHICH, then)
        for sample in (*found.train, *found.valid):
            assert [one.kind for one in sample.media] == kinds
            assert len({one.source.stem for one in sample.media}) == 1
            for variant in sample.variants:
                assert variant.media == sample.media
                rows = variant.part_a[variant.part_a >= FIRST_MEDIA_ID] - FIRST_MEDIA_ID
                assert rows.tolist() == [*range(sum(ROWS[kind] for kind in kinds))]
    other = replace(WHICH, patterns={"zh": ["{first}{then}[MASK]", "{then}{first}[MASK]"]})
    with pytest.raises(DataError, match=r"a.jsonl:1: the patterns .* media in different orders"):
        read(other, "<|audio|>", "<|image|>")
    with pytest.raises(ConfigError, match="writes the field 'photo', which holds a medium"):
        replace(WHICH, patterns={"zh": ["{photo}是[MASK]"]})


def test_a_long_conversation_is_cut_and_keeps_its_media(folder):
    """The bug: the first turn's marker was cut away with its words, and the run ended with an error."""
    glm = random_glm(128)
    for text, place in (("<|image|>什么？", 0), ("很快<|image|>", 0), ("{media}", 1)):
        first = text if place == 0 else "什么？"
        turns = [first, "好吃" * 10, "很快，" * 12, "味道足" * 6, "太慢了？", "凉"]
        record = {"image": [image_bytes()], "turns": turns}
        *_, last = expand(TASK, record, "a:1")
        for limit in (40, 56, 90):
            ids, _, cut = encode_record(TASK, last, glm.tokenizer, limit, "a:1", lambda _: ROWS["image"])  # fmt: skip
            assert cut, limit
            assert ids is not None
            assert len(ids) - 1 <= limit
            rows = ids[ids >= FIRST_MEDIA_ID]
            assert rows.tolist() == [FIRST_MEDIA_ID + row for row in range(ROWS["image"])]
        ids, _, cut = encode_record(TASK, last, glm.tokenizer, 9, "a:1", lambda _: ROWS["image"])
        assert ids is None  # no room: left out and counted, no error and no loop without end


def test_what_is_shown_of_a_record_is_short():
    record = {"image": {"bytes": b"x" * 1_000_000}, "turns": "a"}
    with pytest.raises(DataError) as found:
        [*expand(TASK, record, "a.parquet:1")]
    assert len(str(found.value)) < 600
    assert re.search("a bytes", str(found.value))


def test_markers_survive_the_reader(tmp_path):
    """A file is text: nothing in it is decoded before it is asked for."""
    path = write(tmp_path / "a.jsonl", [{"image": "1.png", "question": "<image>\n什么？", "answer": "x"}])  # fmt: skip
    (tmp_path / "1.png").write_bytes(b"no picture at all")
    assert asked(path) == [("甲：<|image|>什么？\n乙：", "x", ["1.png"])]


def test_a_token_store_holds_no_media(tmp_path):
    with pytest.raises(ConfigError, match="has media .*use glmkit finetune"):
        prepare_task("multimodal", [], tmp_path, None)
