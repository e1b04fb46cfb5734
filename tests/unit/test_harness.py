"""The real lm-evaluation-harness runs a GLM on local task files and gets our own numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from evaluation_samples import tiny_glm, write_records

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: glmkit[harness]")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from glmkit.cli import measuring
from glmkit.errors import ConfigError, GenerationError
from glmkit.generation.choices import score_choices
from glmkit.generation.settings import DecodingSettings
from glmkit.harness import HarnessModel, evaluate

CHOICES = [
    {"question": "床前明月光，疑是地上", "choices": ["霜", "春草", "思故乡"], "answer": 0},
    {"question": "The rivers and the hills", "choices": ["remain", "are green"], "answer": 1},
    {"question": "国破山河在，城春", "choices": ["草木深", "花"], "answer": 0},
]
LAST_WORDS = [
    {"text": "举头望明月，低头思故乡"},
    {"text": "The town is deep in green"},
    {"text": "感时花溅泪，恨别鸟惊心"},
]
HEAD = "dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\ntest_split: test\n"
CHOICE_TASK = """task: local_choice
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list:
  - metric: acc
"""
LAST_TASK = """task: local_last
output_type: loglikelihood
doc_to_text: "{{text[:-1]}}"
doc_to_target: "{{text[-1]}}"
target_delimiter: ""
metric_list:
  - metric: perplexity
  - metric: acc
"""
ROLLING_TASK = """task: local_rolling
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: bits_per_byte
"""
WRITING_TASK = """task: local_writing
output_type: generate_until
doc_to_text: "{{text[:5]}}"
doc_to_target: "{{text[5:]}}"
generation_kwargs:
  until: ["。"]
  max_gen_toks: 6
  do_sample: false
metric_list:
  - metric: exact_match
"""


@pytest.fixture(scope="module")
def glm():
    return tiny_glm()


def requests(kind: str, *arguments: tuple) -> list[Instance]:
    return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]


def write_task(folder: Path, text: str, records: list[dict]) -> str:
    name = text.split()[1]
    data = write_records(folder / f"{name}.jsonl", records)
    path = folder / f"{name}.yaml"
    path.write_text(HEAD.format(data=data) + text, "utf-8")
    return str(path)


def test_the_harness_agrees_with_our_own_scores(glm, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tasks = [
        write_task(tmp_path, CHOICE_TASK, CHOICES),
        write_task(tmp_path, LAST_TASK, LAST_WORDS),
        write_task(tmp_path, ROLLING_TASK, LAST_WORDS),
        write_task(tmp_path, WRITING_TASK, LAST_WORDS),
    ]
    found = evaluate(HarnessModel(glm, end=True, batch_size=2), tasks, bootstrap_iters=0)
    samples, results = found["samples"], found["results"]

    ours = score_choices(
        glm.model, glm.tokenizer, [one["question"] for one in CHOICES], [one["choices"] for one in CHOICES]
    )  # fmt: skip
    right = [
        int(scores.argmax()) == one["answer"] for scores, one in zip(ours, CHOICES, strict=True)
    ]
    assert results["local_choice"]["acc,none"] == pytest.approx(sum(right) / 3)
    for sample in samples["local_choice"]:
        scores = [score for score, _ in sample["filtered_resps"]]
        assert scores == pytest.approx(ours[sample["doc_id"]].tolist(), rel=1e-5)

    texts = [one["text"] for one in LAST_WORDS]
    last = score_choices(glm.model, glm.tokenizer, [text[:-1] for text in texts], [[text[-1]] for text in texts])  # fmt: skip
    mean = sum(float(one[0]) for one in last) / 3
    assert results["local_last"]["perplexity,none"] == pytest.approx(math.exp(-mean), rel=1e-4)

    nats = -sum(one.log_probability for one in glm.score(texts))
    size = sum(len(text.encode()) for text in texts)
    assert results["local_rolling"]["bits_per_byte,none"] == pytest.approx(nats / size / math.log(2), rel=1e-5)  # fmt: skip

    settings = DecodingSettings(max_new_tokens=6, stop=("。",))
    for sample in samples["local_writing"]:
        prompt = texts[sample["doc_id"]][:5]
        assert sample["resps"][0][0] == glm.fill(prompt, max_new_tokens=6, stop="。").blanks[0]
    assert HarnessModel(glm).settings({"until": ["。"], "max_gen_toks": 6}) == settings
    assert found["config"]["model_num_parameters"] == sum(p.numel() for p in glm.model.parameters())


def test_without_its_end_a_continuation_may_go_on(glm):
    asked = requests("loglikelihood", ("床前明月光，", "疑是"), ("", "国破"), ("The rivers", " and the"))  # fmt: skip
    open_ended = HarnessModel(glm).loglikelihood(asked)
    ended = HarnessModel(glm, end=True).loglikelihood(asked)
    for (a, _), (b, _) in zip(open_ended, ended, strict=True):
        assert b < a < 0
    # A beginning is at least as probable as what it begins.
    longer = HarnessModel(glm).loglikelihood(
        requests("loglikelihood", ("床前明月光，", "疑是地上"))
    )
    assert longer[0][0] <= open_ended[0][0] or len(glm.tokenizer.encode("疑是地上")) < 2


def test_rows_do_not_depend_on_their_company_nor_spaces_on_their_side(glm):
    asked = requests(
        "loglikelihood", ("床前明月光，", "疑是"), ("The rivers and", " the hills"), ("The rivers and ", "the hills"), ("春" * 40, "草")
    )  # fmt: skip
    batch = HarnessModel(glm, batch_size=4).loglikelihood(asked)
    single = [HarnessModel(glm, batch_size=1).loglikelihood([one])[0] for one in asked]
    for (a, greedy), (b, alone) in zip(batch, single, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
        assert greedy == alone
    assert batch[1] == pytest.approx(batch[2])


def test_greedy_means_what_fill_writes(glm):
    contexts = ["床前明月光，", "The rivers", "国破山河在", "城春[MASK]深"]
    model = HarnessModel(glm, end=True)
    written = [glm.fill(one, max_new_tokens=8) for one in contexts]
    asked = requests("loglikelihood", *[(one, got.blanks[0]) for one, got in zip(contexts, written, strict=True)])  # fmt: skip
    others = requests("loglikelihood", *[(one, "思故乡") for one in contexts])
    for found, got in zip(model.loglikelihood(asked), written, strict=True):
        # The same text may be other tokens than those that were written; if their score is the same, they are not.
        if got.finished[0] and found[0] == pytest.approx(got.scores[0], rel=1e-4):
            assert found[1]
    assert not any(greedy for _, greedy in model.loglikelihood(others))


def test_a_blank_of_the_context_is_the_one_that_is_filled(glm):
    model = HarnessModel(glm, end=True)
    found = model.loglikelihood(requests("loglikelihood", ("床前[MASK]光", " 明月"), ("床前[MASK]光", "春草")))  # fmt: skip
    ours = score_choices(glm.model, glm.tokenizer, ["床前[MASK]光"], [["明月", "春草"]])[0]
    assert [score for score, _ in found] == pytest.approx(ours.tolist(), rel=1e-5)
    masked = HarnessModel(glm, mask="MASK", end=True)
    (one, _), = masked.loglikelihood(requests("loglikelihood", ("床前", "明月")))  # fmt: skip
    assert one == pytest.approx(float(score_choices(glm.model, glm.tokenizer, ["床前[MASK]"], [["明月"]])[0][0]), rel=1e-5)  # fmt: skip
    with pytest.raises(GenerationError, match="2 blanks, but one is filled"):
        model.loglikelihood(requests("loglikelihood", ("[MASK]，[MASK]", "草")))


def test_long_texts_and_special_strings(glm):
    model = HarnessModel(glm)
    context = "国破山河在，" * 100
    (score, _), = model.loglikelihood(requests("loglikelihood", (context, "城春")))  # fmt: skip
    assert -100 < score < 0
    (rolling,) = model.loglikelihood_rolling(requests("loglikelihood_rolling", (context,)))
    assert rolling == pytest.approx(glm.score(context).log_probability, rel=1e-5)
    with pytest.raises(GenerationError, match="a blank of this model holds 95"):
        model.loglikelihood(requests("loglikelihood", ("城", "春望" * 200)))
    (plain, _), = model.loglikelihood(requests("loglikelihood", ("城<|endofpiece|>", "<|endofpiece|>")))  # fmt: skip
    assert plain < -3  # written out letter by letter, not the end marker
    assert model.loglikelihood(requests("loglikelihood", ("城", ""))) == [(0.0, True)]
    assert model.loglikelihood_rolling(requests("loglikelihood_rolling", ("",))) == [0.0]


def test_writing_stops_where_the_task_says(glm):
    model = HarnessModel(glm, batch_size=2)
    long = model.generate_until(requests("generate_until", ("床前明月光，", {"until": [], "max_gen_toks": 12})))[0]  # fmt: skip
    stop = long[1]
    cut = model.generate_until(
        requests("generate_until", ("床前明月光，", {"until": stop, "max_gen_toks": 12}), ("春", {"until": ["。"], "max_gen_toks": 3}))
    )  # fmt: skip
    assert cut[0] == long.split(stop)[0].strip()
    drawn = {"do_sample": True, "temperature": 1.5, "top_p": 0.9, "seed": 3, "max_gen_toks": 5}
    assert model.settings(drawn).do_sample
    assert not model.settings({"temperature": 0.0, "top_p": 0.9}).do_sample
    assert model.settings({"max_gen_toks": 10_000}).max_new_tokens == 95
    assert len(set(model.generate_until(requests("generate_until", *[("春", drawn)] * 2)))) == 1
    with pytest.raises(GenerationError, match="glmkit has no typical_p"):
        model.settings({"typical_p": 0.3})


def test_it_is_registered_and_loads_what_glmkit_loads(glm, tmp_path):
    glm.model.save_pretrained(tmp_path / "model")
    glm.tokenizer.save_pretrained(tmp_path / "model")
    made = get_model("glmkit").create_from_arg_string(
        f"pretrained={tmp_path / 'model'},mask=sMASK,end=True,device=cpu", {"batch_size": "auto"}
    )
    assert isinstance(made, HarnessModel)
    assert (made.mask, made.end, made.batch_size) == ("[sMASK]", True, 16)
    text = made.apply_chat_template([{"role": "user", "content": "你好！"}])
    assert "你好！" in text
    assert made.chat_template(True)
    made.loglikelihood(requests("loglikelihood", (text, "你好")))  # its blank is the answer's
    for bad in ({"mask": "xMASK"}, {"batch_size": "many"}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(bad))}="):
            HarnessModel(glm, **bad)


def test_a_task_that_is_not_there(glm, tmp_path):
    (tmp_path / "nameless.yaml").write_text("output_type: loglikelihood\n", "utf-8")
    model = HarnessModel(glm)
    with pytest.raises(ConfigError, match=r"nameless\.yaml has no line `task: NAME`"):
        evaluate(model, [str(tmp_path / "nameless.yaml")])
    with pytest.raises(ConfigError, match=r"no task file .*none\.yaml"):
        evaluate(model, [str(tmp_path / "none.yaml")])
    with pytest.raises(ConfigError, match="none named"):
        evaluate(model, [])


def test_the_command_prints_the_harness_table(glm, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    glm.model.save_pretrained(tmp_path / "model")
    glm.tokenizer.save_pretrained(tmp_path / "model")
    measuring.harness(
        write_task(tmp_path, LAST_TASK, LAST_WORDS),
        str(tmp_path / "model"),
        limit=2,
        output=tmp_path / "new" / "found.json",
        device="cpu",
    )
    assert "|local_last|" in capsys.readouterr().out
    saved = json.loads((tmp_path / "new" / "found.json").read_text("utf-8"))
    assert len(saved["samples"]["local_last"]) == 2
