"""Samples in a store: encoded like a prompt, decoded to the same example, shortened without losing the answer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from glmkit.errors import ConfigError, DataError
from glmkit.generation.prompts import build_prompt
from glmkit.tasks.encoding import (
    decode_sample,
    encode_question,
    encode_record,
    open_task_store,
    sample_sizes,
)
from glmkit.tasks.prepare import OUTPUTS, parse_rename, prepare_task
from glmkit.tasks.rendering import question
from glmkit.tasks.task import load_task
from glmkit.tokens.store import TokenStore, TokenStoreWriter
from glmkit.tokens.train import train_tokenizer

TEXTS = [
    "总的来说，很好。评价：这个评价的意思是差。",
    "All in all, it was good. Review: it says that this is bad.",
    "Question: what? Answer: The Nile.",
] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400, "bpe")


def reviews(count: int) -> list[dict]:
    return [
        {"text": f"第{n}次来，{'很好' if n % 2 else '很差'}", "label": n % 2} for n in range(count)
    ]


def write(path, records):
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("record", [{"text": "很快", "label": 1}, {"text": "Cold.", "label": 0}])
def test_part_a_is_the_prompt_that_inference_makes(tokenizer, record):
    asked = question(load_task("sentiment"), record, "x:1")
    part_a, answer = encode_question(asked, tokenizer)
    prompt = build_prompt(tokenizer, asked.before + asked.mask + asked.after, 512)
    assert part_a == prompt.ids.tolist()
    # The space that part A leaves out before the blank belongs to the answer.
    written = prompt.assemble([tokenizer.decode(answer)])
    assert written == asked.before + asked.answer + asked.after


def test_what_is_stored_is_the_example(tokenizer):
    task, specials = load_task("sentiment"), tokenizer.special_ids
    ids, _, shortened = encode_record(task, {"text": "很快", "label": 1}, tokenizer, 512, "x:1")
    example = decode_sample(ids, specials)
    assert not shortened
    assert len(example) == len(ids) - 1
    n_a = example.prefix_length
    mask = example.input_ids[:n_a].tolist().index(specials.mask)
    assert example.input_ids[n_a] == specials.sop
    assert tokenizer.decode(example.labels[n_a:-1]) == "好"
    assert example.labels[-1] == specials.eop
    assert (example.position_ids[0, n_a:] == mask).all()
    assert (example.labels[:n_a] == -100).all()
    for wrong in (ids[:-1], ids[ids != specials.sop], np.append(ids, ids)):
        with pytest.raises(DataError, match="no sample of a task"):
            decode_sample(wrong, specials)


@pytest.mark.parametrize("place", [0, 400, 799])
def test_a_long_text_is_cut_around_the_answer(tokenizer, place):
    words = ["来"] * 800
    words[place] = "长江"
    record = {"context": "".join(words), "question": "哪条江？", "answers": ["长江"]}
    ids, _, shortened = encode_record(load_task("qa"), record, tokenizer, 120, "x:1")
    assert shortened
    assert 90 < len(ids) - 1 <= 120, "much less text was kept than fits"
    text = tokenizer.decode(decode_sample(ids, tokenizer.special_ids).input_ids)
    assert "长江" in text
    assert "哪条江？" in text


def test_history_loses_its_beginning_and_answers_are_never_cut(tokenizer):
    history = "甲：" + "旧" * 500 + "新\n乙："
    record = {"turns": [], "history": history, "reply": "好"}
    ids, _, shortened = encode_record(load_task("dialogue"), record, tokenizer, 64, "x:1")
    assert shortened
    assert "新\n乙：" in tokenizer.decode(ids, skip_special_tokens=True)
    for answer in ("好" * 300, ""):
        record = {"text": "很好", "summary": answer}
        ids, *_ = encode_record(load_task("summary"), record, tokenizer, 64, "x:1")
        assert ids is None
    poem = {"title": "诗", "author": "人", "form": "杂言诗", "lines": ["很好，"] * 100}
    assert encode_record(load_task("poem"), poem, tokenizer, 64, "x:1")[0] is None


@pytest.mark.parametrize("pattern", [0, 1])
def test_words_of_the_question_are_hidden_behind_the_answer(tokenizer, pattern):
    specials = tokenizer.special_ids
    record = {"text": "第一次来，很好。第二次来，也很好。" * 4, "label": 1}
    task = load_task("sentiment")
    ids, *_ = encode_record(task, record, tokenizer, 512, "x:1", pattern=pattern)
    plain = decode_sample(ids, specials)
    rng = np.random.default_rng(0)
    blanks = set()
    for _ in range(50):
        example = decode_sample(ids, specials, rng, max_hidden=4)
        part_a = example.input_ids[: example.prefix_length].tolist()
        starts = np.flatnonzero(example.input_ids == specials.sop)
        blanks.add(len(starts) - 1)
        assert len(example.input_ids) == len(plain.input_ids) + 2 * (len(starts) - 1)
        pieces = {}
        for start, end in zip(starts, [*starts[1:], len(example.input_ids)], strict=True):
            place = int(example.position_ids[0, start])
            assert part_a[place] == specials.mask
            assert example.labels[end - 1] == specials.eop
            pieces[place] = example.labels[start : end - 1].tolist()
        # The answer is written first, and put back everything is the sentence again.
        assert list(pieces.values())[0] == plain.labels[plain.labels >= 0][:-1].tolist()
        whole = [token for n, one in enumerate(part_a) for token in pieces.get(n, [one])]
        answer = pieces[int(example.position_ids[0, starts[0]])]
        question = ids[: plain.prefix_length].tolist()
        place = question.index(specials.mask)
        assert whole == question[:place] + answer + question[place + 1 :]
    assert max(blanks) == 4
    assert decode_sample(ids, specials, rng).labels.tolist() == plain.labels.tolist()


def test_prepared_data_are_stores_of_samples(tokenizer, tmp_path):
    source = write(tmp_path / "data.jsonl", [*reviews(200), *reviews(5)])
    report = prepare_task("sentiment", source, tmp_path / "out", tokenizer, valid_ratio=0.2)
    assert report.records == 205
    assert report.train + report.valid == 200
    assert 15 < report.valid < 70
    assert report.dropped == {"duplicate": 5}
    assert "200 samples" in report.table()
    assert (
        json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["train"] == report.train
    )
    for side, count in (("train", report.train), ("valid", report.valid)):
        store = open_task_store(
            tmp_path / "out" / side, tokenizer.special_ids, tokenizer.fingerprint()
        )
        assert len(store) == count
        examples = [decode_sample(store.document(i), tokenizer.special_ids) for i in range(count)]
        assert sample_sizes(store).tolist() == [len(example) for example in examples]
        assert sample_sizes(store).max() <= report.longest
    again = prepare_task("sentiment", source, tmp_path / "again", tokenizer, valid_ratio=0.2)
    assert (again.train, again.valid) == (report.train, report.valid)
    files = [
        (tmp_path / name / "train" / "tokens-00000.bin").read_bytes() for name in ("out", "again")
    ]
    assert files[0] == files[1]


def test_csv_like_renames_and_mistakes(tokenizer, tmp_path):
    renamed = [{"review": one["text"], "stars": one["label"]} for one in reviews(30)]
    source, out = write(tmp_path / "data.jsonl", renamed), tmp_path / "out"
    with pytest.raises(DataError, match=r"data.jsonl:1: the record has no field 'label'"):
        prepare_task("sentiment", source, out, tokenizer)
    assert not (out / "train").exists(), "a failed run left something that looks finished"
    rename = parse_rename(["text=review", "label=stars"])
    assert (
        prepare_task("sentiment", source, out, tokenizer, rename=rename, valid_ratio=0).train == 30
    )
    with pytest.raises(DataError, match="ask to overwrite"):
        prepare_task("sentiment", source, out, tokenizer, rename=rename)
    prepare_task("sentiment", source, out, tokenizer, rename=rename, overwrite=True)
    with pytest.raises(ConfigError, match="write FIELD=YOURS"):
        parse_rename(["text"])
    long = write(tmp_path / "long.jsonl", [{"text": "很好", "summary": "好" * 300}] * 3)
    with pytest.raises(DataError, match=r"(?s)nothing of 3 records is left.*Raise max_length"):
        prepare_task("summary", long, tmp_path / "o2", tokenizer, max_length=64)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="is not empty. Choose a folder of its own."):
        prepare_task("sentiment", source, tmp_path / "full", tokenizer, overwrite=True)


def test_a_killed_preparation_is_made_again(tokenizer, tmp_path, monkeypatch):
    """It left a folder that was "not empty", and nothing but removing it by hand helped."""
    source, out = write(tmp_path / "data.jsonl", reviews(30)), tmp_path / "out"
    shares = iter([0.5] * 9)

    def killed(*_):
        if (share := next(shares, None)) is None:
            raise KeyboardInterrupt
        return share

    with monkeypatch.context() as patch:
        patch.setattr("glmkit.tasks.prepare.drawn_share", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_task("sentiment", source, out, tokenizer)
    assert prepare_task("sentiment", source, out, tokenizer).records == 30
    assert sorted(path.name for path in out.iterdir()) == sorted(OUTPUTS)
    with pytest.raises(DataError, match="ask to overwrite"):
        prepare_task("sentiment", source, out, tokenizer)


def test_texts_are_not_taken_for_samples(tokenizer, tmp_path):
    specials = tokenizer.special_ids
    with TokenStoreWriter(tmp_path / "texts", "none", len(tokenizer)) as writer:
        writer.add([specials.cls, 20, 21, specials.eos])
    with pytest.raises(DataError, match="holds texts, not the samples of a task"):
        open_task_store(tmp_path / "texts", specials)
    with TokenStoreWriter(tmp_path / "empty", "none", len(tokenizer)):
        pass
    with pytest.raises(DataError, match="is empty"):
        open_task_store(tmp_path / "empty", specials)
    assert TokenStore.open(tmp_path / "empty").num_tokens == 0
