"""A checkpoint in the published format gets words, does what it did, and learns from text of its new domain."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import glmkit
from conftest import golden_folder
from glmkit.config import from_values
from glmkit.errors import CheckpointError, ConfigError
from glmkit.model import GLMForConditionalGeneration
from glmkit.tokens.store import TokenStoreWriter
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training.extend import extend_vocabulary
from glmkit.training.pretrain import pretrain
from glmkit.training.settings import PretrainConfig, check

WORDS = ["糖化血红蛋白", "新冠肺炎", "二甲双胍片"]
TEXTS = [
    f"{who}的{word}{what}。"
    for who in ("患者", "老人", "孕妇", "儿童", "医生")
    for word in WORDS
    for what in ("升高", "已经好转", "需要检查", "不能停用", "很常见", "有副作用")
]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended") / "model"
    report = extend_vocabulary(golden_folder("tiny-chinese").path, folder, words=WORDS, corpus=[])
    return folder, report


def test_the_report(extended):
    folder, report = extended
    assert report.words == WORDS
    assert (report.tokens_before, report.tokens_after, report.rows) == (50010, 50014, 50048)
    assert "3 words added (糖化血红蛋白, 新冠肺炎, 二甲双胍片)" in str(report)
    assert not list(folder.parent.glob(".*"))


def test_new_rows_are_means_and_old_rows_are_kept(extended):
    source = golden_folder("tiny-chinese").path
    old, tokenizer = (
        kind.from_pretrained(source) for kind in (GLMForConditionalGeneration, GLMTokenizer)
    )
    new = glmkit.load(extended[0])
    before, after = (m.get_input_embeddings().weight.detach().float() for m in (old, new.model))
    assert torch.equal(before[:50011], after[:50011])
    for place, word in enumerate(WORDS):
        comma, both = tokenizer(["，", f"，{word}"], add_special_tokens=False)["input_ids"]
        ids = both[len(comma) :]
        assert len(ids) > 1
        torch.testing.assert_close(after[50011 + place], before[ids].mean(0), rtol=0, atol=1e-3)
    assert new.model.config.num_tokens == 50014
    assert new.tokenizer.special_ids == tokenizer.special_ids


def test_it_does_what_it_did_with_text_without_the_words(extended):
    old, new = glmkit.load(golden_folder("tiny-chinese").path), glmkit.load(extended[0])
    texts = ["北京是中国的[MASK]。", "今天天气[gMASK]"]
    for text in texts:
        assert new.tokenizer(text) == old.tokenizer(text)
    inputs = old.tokenizer(texts[0], return_tensors="pt")
    with torch.no_grad():
        left, right = (one.model(**inputs).logits[..., :50011] for one in (old, new))
    torch.testing.assert_close(left, right)


def test_more_rows_where_the_padding_is_used_up(tmp_path):
    words = [chr(0x4E00 + i) + chr(0x5E00 + i) + chr(0x6E00 + i) for i in range(100)]
    report = extend_vocabulary(golden_folder("tiny-chinese").path, tmp_path / "m", words=words)
    assert report.rows % 64 == 0
    assert report.rows >= report.tokens_after == 50011 + len(report.words) > 50048
    weights = load_file(tmp_path / "m" / "model.safetensors")
    assert len(weights["glm.word_embeddings.weight"]) == report.rows
    filled = glmkit.load(tmp_path / "m").fill("春天的[MASK]来了。", max_new_tokens=3)
    assert len(filled.blanks) == 1


def prepared(model, folder):
    """Writes what `glmkit prepare --tokenizer MODEL` would."""
    tokenizer = GLMTokenizer.from_pretrained(model)
    tokenizer.save_pretrained(folder / "tokenizer")
    for name, part in (("train", TEXTS[8:]), ("valid", TEXTS[:8])):
        with TokenStoreWriter(folder / name, tokenizer.fingerprint(), len(tokenizer)) as writer:
            for text in part:
                writer.add(tokenizer(text)["input_ids"])
    return folder


def config(model, data, run, **changes):
    trainer = {
        "output_dir": str(run), "max_steps": 12, "per_device_train_batch_size": 4, "learning_rate": 3e-3,
        "use_cpu": True, "eval_steps": 12, "save_steps": 12, "logging_steps": 6,
    }  # fmt: skip
    return from_values(
        PretrainConfig,
        {
            "data": {"folder": str(data), "row_length": 64, "valid_rows": 4},
            "model": {"from": str(model), **changes},
            "trainer": trainer,
        },
    )


@pytest.fixture(scope="module")
def data(extended, tmp_path_factory):
    return prepared(extended[0], tmp_path_factory.mktemp("domain"))


@pytest.mark.slow
def test_training_goes_on_and_the_loss_falls_below_that_before(extended, data, tmp_path):
    report = pretrain(config(extended[0], data, tmp_path / "run", output_dropout_prob=0.0))
    assert report.loss_after["loss"] < 0.9 * report.loss_before["loss"]
    new = glmkit.load(report.model)
    assert new.tokenizer.fingerprint() == GLMTokenizer.from_pretrained(extended[0]).fingerprint()
    assert new.model.config.output_dropout_prob == 0.0
    assert new.model.config.hidden_act == "gelu"  # the published format's
    assert new.perplexity(TEXTS[:4]) < glmkit.load(extended[0]).perplexity(TEXTS[:4])
    assert pretrain(config(extended[0], data, tmp_path / "run", output_dropout_prob=0.0)) == report


def test_what_does_not_fit_is_refused(extended, data, tmp_path):
    published = golden_folder("tiny-chinese").path
    with pytest.raises(ConfigError, match="prepared with another tokenizer than that of") as error:
        check(config(published, data, tmp_path / "run", hidden_size=8, preset="base"))
    assert "model.hidden_size is the checkpoint's" in str(error.value)
    assert "model.preset is the checkpoint's" in str(error.value)
    with pytest.raises(ConfigError, match="model.from = 'absent'"):
        check(config("absent", data, tmp_path / "run"))
    long = config(extended[0], data, tmp_path / "run")
    object.__setattr__(long.data, "row_length", 4096)
    with pytest.raises(ConfigError, match="longer than the model's 128 positions"):
        check(long)


def test_words_must_be_asked_for_and_folders_are_kept(extended, tmp_path):
    source = golden_folder("tiny-chinese").path
    with pytest.raises(ConfigError, match="name words to add"):
        extend_vocabulary(source, tmp_path / "m")
    with pytest.raises(CheckpointError, match="not empty"):
        extend_vocabulary(source, extended[0], words=["新冠"])
    (tmp_path / "letter.txt").write_text("不是模型")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        extend_vocabulary(source, tmp_path, words=["新冠"], overwrite=True)
    assert (tmp_path / "letter.txt").is_file()


@pytest.mark.slow
def test_words_of_a_corpus_and_the_command(tmp_path, capsys, monkeypatch):
    from glmkit.cli.main import main

    (tmp_path / "corpus.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    (tmp_path / "words.txt").write_text("糖化血红蛋白\n的\n", encoding="utf-8")
    source = golden_folder("tiny-chinese").path
    arguments = ["extend-vocabulary", source, "-o", tmp_path / "m", "--words", tmp_path / "words.txt",
                 "--learn", 4, "--data", tmp_path / "corpus.txt"]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["glmkit", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert "5 words added (糖化血红蛋白, " in shown
    assert "1 were tokens already" in shown
    assert "fewer tokens" in shown
    tokenizer = glmkit.load(tmp_path / "m").tokenizer
    learned = set(tokenizer.get_added_vocab()) - set(tokenizer.all_special_tokens) - set(WORDS)
    assert learned & {token for text in TEXTS for token in tokenizer.tokenize(text)}
