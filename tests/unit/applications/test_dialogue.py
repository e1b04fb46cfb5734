"""Dialogue: the prompt is the training sample's, history gives way by turns, wrong messages are named."""

from __future__ import annotations

import pytest

import glmkit
from conftest import golden_folder
from glmkit.applications.dialogue import conversation_prompt, read_conversation, with_stops
from glmkit.blanks.layout import lay_out
from glmkit.errors import GenerationError
from glmkit.generation.settings import DecodingSettings
from glmkit.tasks.encoding import decode_sample, encode_record
from glmkit.tasks.rendering import expand
from glmkit.tasks.task import load_task
from glmkit.tokens.train import train_tokenizer

CHINESE = ["你好！", "你好，想聊什么？", "电影。", "好的", "推荐一部吧"]
ENGLISH = ["Hello!", "Hi, what shall we talk about?", "Films <|endofpiece|> [gMASK].", "", "1, 2"]


def messages(turns: list[str], system: str | None = None) -> list[dict[str, str]]:
    """Returns turns as messages, the last one the user's."""
    roles = ["user", "assistant"] * len(turns)
    roles = roles[: len(turns)] if len(turns) % 2 else roles[1 : len(turns) + 1]
    said = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]
    return said if system is None else [{"role": "system", "content": system}, *said]


@pytest.fixture(scope="module")
def loaded() -> glmkit.GLM:
    return glmkit.load(golden_folder("tiny-chinese").path, device="cpu")


@pytest.fixture(scope="module")
def own_tokenizer():
    """A vocabulary as glmkit trains it."""
    return train_tokenizer([*CHINESE, *ENGLISH, "甲：乙：A: B: \n"] * 20, 400, "bpe")


@pytest.fixture(params=["chinese", "own"])
def tokenizer(request, loaded: glmkit.GLM, own_tokenizer):
    return loaded.tokenizer if request.param == "chinese" else own_tokenizer


@pytest.mark.parametrize("turns", [CHINESE, ENGLISH, CHINESE[:1], ENGLISH[:3]])
def test_the_prompt_is_the_training_samples_part_a(tokenizer, turns: list[str]):
    task = load_task("dialogue")
    *_, record = expand(task, {"turns": [*turns, "reply"]}, "here")
    sample, _, shortened = encode_record(task, record, tokenizer, 400, "here")
    prompt = conversation_prompt(tokenizer, read_conversation(messages(turns)), task, 400)
    part_a = lay_out(prompt.ids, [], tokenizer.special_ids.sop).input_ids
    trained = decode_sample(sample, tokenizer.special_ids).input_ids
    assert not shortened
    assert trained[: len(part_a)].tolist() == part_a.tolist()
    assert len(trained) - len(part_a) <= 8  # the start marker and "reply"


def test_the_user_is_always_the_first_speaker(loaded: glmkit.GLM):
    task = load_task("dialogue")
    written = {
        count: conversation_prompt(
            loaded.tokenizer, read_conversation(messages(CHINESE[:count], "很友好")), task, 400
        ).parts[0]
        for count in (1, 2)
    }
    assert written[1] == "很友好\n甲：你好！\n乙："
    assert written[2] == "很友好\n乙：你好！\n甲：你好，想聊什么？\n乙："


def test_history_gives_way_by_whole_turns(tokenizer, caplog):
    task = load_task("dialogue")
    turns = [f"第{number}句话，说得不长也不短。" for number in range(41)]
    whole = conversation_prompt(tokenizer, read_conversation(messages(turns)), task, 10_000)
    for limit in (60, 100, 200):
        prompt = conversation_prompt(
            tokenizer, read_conversation(messages(turns, "记住")), task, limit
        )
        system, *lines, last = prompt.parts[0].split("\n")
        assert system == "记住"
        assert last == "乙："
        assert [line[2:] for line in lines] == turns[-len(lines) :]  # the latest, each one whole
        assert len(prompt.ids) <= limit < len(whole.ids)
        longer = conversation_prompt(
            tokenizer,
            read_conversation(messages(turns[-len(lines) - 1 :], "记住")),
            task,
            10_000,
        )
        assert len(longer.ids) > limit  # one more would not fit
    assert not caplog.records
    long = conversation_prompt(tokenizer, read_conversation("长" * 10_000 + "尾"), task, 100)
    assert 90 <= len(long.ids) <= 100
    assert long.parts[0].endswith("尾\n乙：")
    assert "was cut to its last" in caplog.text
    with pytest.raises(GenerationError, match="system message has 10000 characters"):
        conversation_prompt(
            tokenizer, read_conversation(messages(["好"], "长" * 10_000)), task, 100
        )


def test_one_conversation_gives_a_reply_and_several_a_list(loaded: glmkit.GLM):
    one = loaded.chat("你好", max_new_tokens=6)
    assert isinstance(one, str)
    assert loaded.chat([{"role": "user", "content": "你好"}], max_new_tokens=6) == one
    several = ["你好", messages(CHINESE), messages(ENGLISH, "Be kind."), "", "x" * 10_000]
    together = loaded.chat(several, max_new_tokens=6)
    assert together == [loaded.chat(conversation, max_new_tokens=6) for conversation in several]
    assert together[0] == one
    pieces = loaded.chat(messages(CHINESE), stream=True, max_new_tokens=6)
    assert "".join(pieces).strip() == together[1]
    assert all(len(reply) for reply in together)


def test_the_model_never_speaks_for_the_user(loaded: glmkit.GLM):
    """A reply ends where the next turn's speaker would be written."""
    settings = with_stops(DecodingSettings(stop="。。"), load_task("dialogue"))
    assert settings.stop == ("。。", "甲：", "乙：", "\nA:", "\nB:")
    reply = loaded.chat("你好", max_new_tokens=8, no_repeat_ngram_size=0)
    assert (
        loaded.chat("你好", max_new_tokens=8, no_repeat_ngram_size=0, stop=reply[2])
        == (reply.split(reply[2])[0])
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "not empty"),
        (3, "messages must be a text or a list"),
        ([{"role": "user"}], r"messages\[0\] must be"),
        ([{"role": "usr", "content": "x"}], r"messages\[0\] has the role 'usr'.*did you mean 'user'"),
        ([{"role": "user", "content": 3}], r"messages\[0\]: content must be a string or a list of parts, not int"),
        (messages(["a"], "s")[:1], "only a system message"),
        ([*messages(["a"]), *messages(["a"])], r"messages\[0\] has the role 'user', where 'assistant'"),
        ([*messages(["a"]), {"role": "assistant", "content": "b"}], r"messages\[1\].*the last message is the user's"),
        ([*messages(["a"]), {"role": "system", "content": "b"}], r"messages\[1\] has the role 'system'; allowed there"),
    ],
)  # fmt: skip
def test_wrong_messages_are_named(loaded: glmkit.GLM, given, words: str):
    with pytest.raises(GenerationError, match=words):
        loaded.chat(given)


def test_streams_are_of_one_conversation(loaded: glmkit.GLM):
    with pytest.raises(GenerationError, match="one conversation"):
        loaded.chat(["a", "b"], stream=True)


@pytest.mark.parametrize(
    "turns", [CHINESE, ENGLISH, CHINESE[:2], ["好", "ok"], ["a\nb\r\n c", "", "[MASK]"]]
)
@pytest.mark.parametrize("system", [None, "请说中文。"])
def test_the_chat_template_is_the_same_prompt(loaded: glmkit.GLM, own_tokenizer, turns, system):
    """What other tools render with the tokenizer has the ids of glmkit's own prompts."""
    from glmkit.applications.chat_template import chat_template

    task, said = load_task("dialogue"), messages(turns, system)
    said = [{**one, "content": one["content"].replace("<|endofpiece|>", "")} for one in said]
    for tokenizer in (loaded.tokenizer, own_tokenizer):
        template = chat_template(task)
        text = tokenizer.apply_chat_template(
            said, chat_template=template, tokenize=False, add_generation_prompt=True
        )
        expected = conversation_prompt(tokenizer, read_conversation(said), task, 10_000)
        assert tokenizer(text)["input_ids"] == expected.ids.tolist()
    with pytest.raises(Exception, match="roles user and assistant"):
        loaded.tokenizer.apply_chat_template([{"role": "tool", "content": "x"}])
