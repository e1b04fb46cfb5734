"""The native decoder computes what the torch model computes, whatever the sizes, the threads and the order of calls."""

from __future__ import annotations

import os
import pickle
import platform
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_samples import (
    as_understood,
    feed,
    native,
    random_model,
    reference,
    runner_of,
    sample,
    scores,
    wild_products,
)

from glmkit.checkpoint.quantized import WORDS, NativeWeights
from glmkit.errors import CheckpointError, GenerationError
from glmkit.native import library
from glmkit.native.library import NativeError
from glmkit.native.runner import NativeDecoder, NativeRunner
from glmkit.special_tokens import FIRST_MEDIA_ID

if (reason := library.why_not()) is not None:
    pytest.skip(reason, allow_module_level=True)

TOLERANCE = {
    "float32": (3e-6, 1e-6),
    "bfloat16": (1e-3, 2e-4),
    "int8": (5e-2, 1e-2),
    "int4": (5e-2, 1e-2),
}
"""Largest and median difference, in units of the largest logit: some four times what 400 random models showed. The cache holds
float16 unless the weights are float32; and an activation half way between two of the 255 steps of int8 may go to either."""


def close(found: np.ndarray, expected: np.ndarray, quantization: str) -> bool:
    differences = np.abs(found - expected) / np.abs(expected).max()
    largest, median = TOLERANCE[quantization]
    return float(differences.max()) <= largest and float(np.median(differences)) <= median


def read(runner: NativeRunner, tokens, prefix: int, cuts: list[int]) -> np.ndarray:
    """Logits after every token, read in several calls."""
    sequence = runner.open()
    found = []
    edges = [0, *cuts, len(tokens[0])]
    for start, end in zip(edges, edges[1:], strict=False):
        found += runner.forward([feed(sequence, tokens, start, end, prefix if start == 0 else 0)])
    assert runner.length(sequence) == len(tokens[0])
    runner.close(sequence)
    return np.concatenate(found)


@settings(deadline=None, max_examples=40)
@given(
    layers=st.integers(1, 3),
    heads=st.integers(2, 5),
    head_size=st.sampled_from([8, 10, 16, 20]),
    mlp=st.integers(8, 100),
    vocabulary=st.integers(32, 200),
    activation=st.sampled_from(["gelu", "gelu_new", "relu"]),
    blocks=st.booleans(),
    prefix=st.integers(0, 70),
    written=st.integers(1, 40),
    quantization=st.sampled_from(["float32", "bfloat16", "int8", "int4"]),
    threads=st.integers(1, 3),
    data=st.data(),
)
def test_logits_are_those_of_the_torch_model(
    layers,
    heads,
    head_size,
    mlp,
    vocabulary,
    activation,
    blocks,
    prefix,
    written,
    quantization,
    threads,
    data,
):
    model = random_model(
        num_layers=layers,
        hidden_size=heads * head_size,
        num_attention_heads=heads,
        intermediate_size=mlp,
        vocab_size=vocabulary,
        hidden_act=activation,
        block_position_encoding=blocks,
    )
    tokens = sample(model, prefix, written)
    cuts = sorted(
        data.draw(st.sets(st.integers(max(1, prefix), prefix + written - 1), max_size=3))
        if written > 1
        else []
    )
    if prefix == 0:
        cuts = [cut for cut in cuts if cut > 0]
    found = read(native(model, quantization, threads), tokens, prefix, cuts)
    expected = reference(as_understood(model, quantization), tokens, prefix)
    assert close(found, expected, quantization)


@pytest.mark.parametrize(
    ("format", "of_words"),
    [("int4", "int8"), ("int8", "bfloat16"), ("bfloat16", "int8"), ("bfloat16", "float32")],
)
def test_each_matrix_has_its_own_format(format: str, of_words: str, tmp_path):
    """A file says which: until November 2026 that of int4 had the word embedding in 8 bits."""
    model = random_model()
    weights, other = (NativeWeights.of(model.config, model.state_dict(), name) for name in (format, of_words))  # fmt: skip
    weights.matrices[WORDS] = other.matrices[WORDS]
    weights.save(tmp_path)
    weights, tokens = NativeWeights.load(tmp_path), sample(model, 30, 5)
    assert {name: one.format for name, one in weights.matrices.items()} == {name: of_words if name == WORDS else format for name in weights.matrices}  # fmt: skip
    found = read(NativeRunner(NativeDecoder(model.config, weights, 1)), tokens, 30, [])
    roughest = "bfloat16" if {format, of_words} <= {"bfloat16", "float32"} else "int4"
    assert close(found, reference(as_understood(model, weights), tokens, 30), roughest)


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_what_is_stored_in_16_bits_is_exact_in_float32(stored: str):
    """It is kept in fewer bytes, and multiplied as float32 is: of float16 the sums have the same bits, whatever the number of rows."""
    model = random_model(num_layers=3, hidden_size=72, num_attention_heads=3).to(
        getattr(torch, stored)
    )
    state, model = {name: one.clone() for name, one in model.state_dict().items()}, model.float()
    few, all32 = runner_of(model, state, "float32", threads=2), native(model, "float32", threads=2)
    packed = NativeWeights.of(model.config, state, "float32")
    assert {one.format for one in packed.matrices.values()} == {stored}
    assert (
        packed.nbytes < 0.6 * NativeWeights.of(model.config, model.state_dict(), "float32").nbytes
    )
    for name, one in packed.items():
        assert np.array_equal(one, state[name].float().numpy()), name
    for prefix, cuts in ((70, [71, 72, 75]), (0, [1, 3, 8, 60])):
        tokens = sample(model, prefix, 80 - prefix)
        found, expected = read(few, tokens, prefix, cuts), read(all32, tokens, prefix, cuts)
        assert close(found, reference(model, tokens, prefix), "float32")
        if stored == "float16":
            assert np.array_equal(found, expected)


def check_wild(products) -> None:
    """A number of bfloat16 in the wrong place is as large as the sums themselves."""
    for found, expected, sizes in products:
        assert (np.abs(found - expected) <= 2e-5 * sizes).all()


def test_numbers_far_from_the_others_are_where_they_belong():
    check_wild(wild_products())


@pytest.mark.parametrize("quantization", ["float32", "int8", "int4"])
def test_company_threads_and_cuts_change_no_bit(quantization: str):
    model = random_model(num_layers=3)
    samples = [sample(model, prefix, 5, seed) for seed, prefix in enumerate((3, 40, 17, 64, 1, 33))]
    alone = [read(native(model, quantization), one, len(one[0]) - 5, []) for one in samples]
    runner = native(model, quantization, threads=2)
    sequences = [runner.open() for _ in samples]
    together = runner.forward(
        [
            feed(s, one, 0, len(one[0]) - 4, len(one[0]) - 5)
            for s, one in zip(sequences, samples, strict=True)
        ]
    )
    for step in range(4, 0, -1):
        more = runner.forward(
            [
                feed(s, one, len(one[0]) - step, len(one[0]) - step + 1)
                for s, one in zip(sequences, samples, strict=True)
            ]
        )
        together = [np.concatenate(both) for both in zip(together, more, strict=True)]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("quantization", ["float32", "bfloat16", "int8", "int4"])
def test_many_rows_give_the_bits_of_few(quantization: str):
    """Whatever is multiplied together: more rows and columns than stay near, what two or four blocks leave over."""
    if quantization == "bfloat16" and not library.instructions().startswith("avx512"):
        pytest.skip("sums of bfloat16 depend on how many rows there are")
    draw = torch.Generator().manual_seed(0)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=draw))

    for round in range(8):
        model = random_model(
            round,
            num_layers=1,
            hidden_size=number(1, 90) if round % 4 else number(1030, 1200),
            num_attention_heads=1,
            intermediate_size=number(1, 400) if round % 3 else number(1030, 2300),
            vocab_size=number(1, 200),
        )
        runner = native(model, quantization, threads=number(1, 3))
        tokens = sample(model, 0, number(33, 127), round)
        together = read(runner, tokens, 0, [])
        assert np.array_equal(together, read(runner, tokens, 0, list(range(1, len(tokens[0])))))


def test_little_work_alone_and_much_work_shared_take_turns():
    """A token of this model is little, a long text is not; an odd number of steps by one thread must not confuse the others."""
    model = random_model(num_layers=3, hidden_size=192)
    runner, texts = (
        native(model, "float32", threads=2),
        [sample(model, 100, 9, seed) for seed in range(4)],
    )
    for tokens in texts:
        little = runner.open()
        runner.states([feed(little, tokens, 0, 1)])
        found = read(runner, tokens, 100, [])
        assert close(found, reference(model, tokens, 100), "float32")


def test_forks_share_what_they_have_read_and_go_on_alone():
    model = random_model()
    runner = native(model, "float32")
    tokens, other = sample(model, 50, 20), sample(model, 50, 20, seed=1)
    other = tuple(torch.cat((one[:60], two[60:])) for one, two in zip(tokens, other, strict=True))
    first = runner.open()
    runner.forward([feed(first, tokens, 0, 60, 50)])
    held = runner._decoder.cache_bytes
    second = runner.fork(first)
    assert runner._decoder.cache_bytes == held
    found = [np.concatenate([runner.forward([feed(s, t, i, i + 1)])[0] for i in range(60, 70)])
             for s, t in ((first, tokens), (second, other))]  # fmt: skip
    assert runner._decoder.cache_bytes == held / 2 * 5  # of three pages each the first is one
    for logits, whole in zip(found, (tokens, other), strict=True):
        assert close(logits, reference(model, whole, 50)[60:], "float32")
    runner.close(first)
    third = runner.fork(second)
    runner.close(second)
    runner.truncate(third, 55)
    again = runner.forward([feed(third, tokens, 55, 70)])[0]
    assert close(again, reference(model, tokens, 50)[55:], "float32")
    runner.close(third)
    assert runner._decoder.cache_bytes == 0


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_pages_that_are_used_again_leave_no_trace(quantization: str):
    """Not even where they held numbers that are none."""
    model = random_model(num_layers=1)
    runner = native(model, quantization)
    tokens, short = sample(model, 100, 3), sample(model, 37, 3, seed=1)
    expected = read(runner, short, 37, [38])
    words = torch.full((100, model.config.hidden_size), torch.nan)
    wild = (torch.full_like(tokens[0], FIRST_MEDIA_ID), *tokens[1:])
    sequence = runner.open()
    assert np.isnan(runner.forward([feed(sequence, wild, 0, 100, 100, media=words)])[0]).all()
    runner.close(sequence)
    assert np.array_equal(read(runner, short, 37, [38]), expected)


def check_likeliest(found: list, logits: np.ndarray, barred: list[np.ndarray]) -> None:
    """Against NumPy in float64."""
    for (token, score), row, no in zip(found, logits, barred, strict=True):
        row = np.where(no, -np.inf, row[: len(no)]).astype(np.float64)
        if np.isnan(row).any() or row.max() == -np.inf:
            assert not np.isfinite(score)
            continue
        assert token == row.argmax()
        assert score == pytest.approx(-np.log(np.exp(row - row.max()).sum()), abs=2e-6, rel=1e-6)


@pytest.mark.parametrize("vocabulary", [17, 64, 4096, 4100, 9000])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_likeliest_token(vocabulary: int, threads: int):
    """Also where all are barred, some are equal, or a number is none; alone and in company the bits are the same."""
    runner = native(random_model(num_layers=1, vocab_size=vocabulary), "int8", threads)
    logits, barred = scores(vocabulary)
    found = runner._likeliest(logits, barred)
    check_likeliest(found, logits, barred)
    for place, one in enumerate(found):
        alone = runner._likeliest(logits[place : place + 1], barred[place : place + 1])
        assert np.array_equal(alone, [one], equal_nan=True)


def test_a_runner_that_chooses():
    """Beside feeds that want logits, of several places, and as the only one: what the logits say."""
    model = random_model(num_layers=1)
    runner, tokens = native(model, "int8"), sample(model, 20, 6)
    no = np.arange(990) % 3 == 0
    handles = [runner.open() for _ in range(3)]
    asked = [feed(handle, tokens, 0, 24, 20, 3) for handle in handles]
    asked[1].barred, asked[2].barred = [no] * 3, None
    first, chosen, last = runner.forward(asked)
    assert np.array_equal(first, last)
    check_likeliest(chosen, first, [no] * 3)
    later = [feed(handle, tokens, 24, 25) for handle in handles]
    later[0].barred, later[1].barred = [no], [~no]
    [logits] = runner.forward(later[2:])
    check_likeliest([one[0] for one in runner.forward(later[:2])], logits.repeat(2, 0), [no, ~no])
    with pytest.raises(NativeError, match="1001 tokens of which some are barred, in a vocabulary of 1000"):  # fmt: skip
        runner._likeliest(first, [np.zeros(1001, bool)])


def test_a_refused_call_changes_nothing():
    model = random_model()
    runner, tokens = native(model, "float32"), sample(model, 10, 10)
    sequence, free = runner.open(), runner.open()
    runner.forward([feed(sequence, tokens, 0, 12, 10)])
    good = feed(sequence, tokens, 12, 13)
    wrong = {
        "the id 1000 in a vocabulary of 1000": feed(
            free, [torch.tensor([1000]), *tokens[1:]], 0, 1
        ),
        "the id -1": feed(free, [torch.tensor([-1]), *tokens[1:]], 0, 1),
        "the id 16777215": feed(free, [torch.tensor([2**24 - 1]), *tokens[1:]], 0, 1),
        "row 1099494850560 ": feed(free, [torch.tensor([2**40]), *tokens[1:]], 0, 1),
        r"the position \(129, 0\); this model's tables end at 128": feed(
            free, [tokens[0], torch.tensor([129]), tokens[2]], 0, 1
        ),
        "there is no sequence 7": feed(7, tokens, 0, 1),
        "fed twice": feed(sequence, tokens, 12, 13),
        "a prefix of 3 .* into a sequence of 12": feed(sequence, tokens, 12, 16, prefix=3),
        "5 logits": feed(free, tokens, 0, 3, num_logits=5),
    }
    for message, bad in wrong.items():
        feeds = [bad] if bad.sequence == sequence and "twice" not in message else [good, bad]
        with pytest.raises(GenerationError, match=message):
            runner.forward(feeds)
        assert (runner.length(sequence), runner.length(free)) == (12, 0)
    assert runner.forward([]) == []
    found = runner.forward([good])[0]
    assert close(found, reference(model, tokens, 10)[12:13], "float32")
    for call in (
        lambda: runner.truncate(sequence, 14),
        lambda: runner.truncate(sequence, -1),
        lambda: runner.close(9),
    ):
        with pytest.raises(NativeError):
            call()


def test_threads_of_python_take_turns():
    model = random_model()
    runner, wrong = native(model, "int8", threads=2), []
    samples = [sample(model, 20 + n, 6, seed=n) for n in range(6)]
    expected = [read(runner, one, len(one[0]) - 6, []) for one in samples]

    def work(n: int) -> None:
        for _ in range(5):
            if not np.array_equal(
                read(runner, samples[n], len(samples[n][0]) - 6, [len(samples[n][0]) - 3]),
                expected[n],
            ):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def environment(**variables: str) -> dict[str, str]:
    """Of a process that imports what this one does, `native_samples` too."""
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    return {**os.environ, "PYTHONPATH": path, **variables}


def test_what_is_garbage_together_ends_in_any_order():
    """Python finalizes the members of a cycle as it likes: a model may be told to go before its sequences are, also when the process ends."""
    code = (
        "import gc\n"
        "from native_samples import native, random_model, sample, feed\n"
        "model = random_model(); tokens = sample(model, 9, 3)\n"
        "for turn in range(8):\n"
        "    runner = native(model, 'int8'); decoder = runner._decoder\n"
        "    sequences = [runner.open() for _ in range(turn % 3)]\n"
        "    if sequences: runner.forward([feed(one, tokens, 0, 12, 9) for one in sequences])\n"
        "    runner.itself, decoder.itself = runner, decoder\n"
        "    if turn % 2: decoder.runner = runner\n"
        "    if turn < 6: del runner, decoder; gc.collect()\n"
        "print('collected')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["collected"]), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_goes_on():
    """A server that forks workers after loading: the child's threads are its own."""
    code = (
        "import os, sys, numpy\n"
        "from native_samples import native, random_model, sample, feed\n"
        "model = random_model(); runner = native(model, 'int8', threads=2); tokens = sample(model, 9, 3)\n"
        "def run():\n"
        "    s = runner.open(); return runner.forward([feed(s, tokens, 0, 12, 9)])[0]\n"
        "before = run(); child = os.fork()\n"
        "same = numpy.array_equal(run(), before)\n"
        "if child == 0: os._exit(0 if same else 1)\n"
        "sys.exit(os.waitpid(child, 0)[1] or not same)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment(),
        timeout=100,
    )
    assert done.returncode == 0


LESS_TO_MORE = ["portable", "neon", "dotprod"] if platform.machine() in ("aarch64", "arm64") else ["portable", "avx2", "avxvnni", "avx512", "avx512bf16", "amx"]  # fmt: skip


def run_with(instructions: str, code: str, folder: Path):
    """What code pickles into the file that is its argument, in a process that uses no more than these instructions."""
    subprocess.run(
        [sys.executable, "-c", code, str(folder / "found")],
        env=environment(GLMKIT_INSTRUCTIONS=instructions),
        check=True,
        timeout=100,
    )
    return pickle.loads((folder / "found").read_bytes())


@pytest.mark.parametrize(
    "instructions",
    [pytest.param(LESS_TO_MORE[0], marks=pytest.mark.slow), *LESS_TO_MORE[1:-1]],
)
def test_every_instruction_set_computes_the_same(instructions: str, tmp_path):
    """The plain C++ loops, and the vector instructions that are not this processor's best (which all other tests run)."""
    here = library.instructions()
    if LESS_TO_MORE.index(here) <= LESS_TO_MORE.index(instructions):
        pytest.skip(f"{here} is what all other tests run here")
    code = (
        "import pickle, sys\n"
        "from native_samples import native, random_model, sample, feed\n"
        "from glmkit.native.library import instructions\n"
        "model = random_model(num_layers=3, hidden_size=72, num_attention_heads=3); tokens = sample(model, 37, 9); found = {}\n"
        "for name in ('float32', 'bfloat16', 'int8', 'int4'):\n"
        "    runner = native(model, name); s = runner.open()\n"
        "    found[name] = runner.forward([feed(s, tokens, 0, 46, 37)])[0]\n"
        "from native_samples import scores, wild_products\n"
        "found['likeliest'] = runner._likeliest(*scores(1000))\n"
        "found['wild'] = wild_products()\n"
        "pickle.dump((instructions(), found), open(sys.argv[1], 'wb'))\n"
    )
    used, found = run_with(instructions, code, tmp_path)
    assert used == instructions
    model = random_model(num_layers=3, hidden_size=72, num_attention_heads=3)
    tokens = sample(model, 37, 9)
    check_likeliest(found.pop("likeliest"), *scores(1000))
    check_wild(found.pop("wild"))
    for name, logits in found.items():
        expected = reference(as_understood(model, name), tokens, 37)
        assert close(logits, expected, name), name


def test_tiles_give_the_bits_of_avx512(tmp_path: Path):
    """Of whole numbers, however many rows there are: half a tile's, beyond what fills one, more columns than stay near, lone blocks."""
    if library.instructions() != "amx":
        pytest.skip("this processor has no tiles")
    code = (
        "import pickle, sys, torch\n"
        "from native_samples import native, random_model, sample, feed\n"
        "draw = torch.Generator().manual_seed(0); found = []\n"
        "number = lambda low, high: int(torch.randint(low, high + 1, (), generator=draw))\n"
        "for round in range(40):\n"
        "    heads = number(1, 4)\n"
        "    model = random_model(round, hidden_size=heads * number(1, 40), num_attention_heads=heads, vocab_size=number(1, 300),\n"
        "        intermediate_size=number(1, 400) if round % 8 else number(1000, 2300), hidden_act=('gelu', 'gelu_new', 'relu')[round % 3])\n"
        "    tokens = sample(model, 0, number(9, 100) if round % 5 else 8, round)\n"
        "    runner = native(model, ('int8', 'int4')[round % 2], threads=number(1, 3)); s = runner.open()\n"
        "    found.append(runner.forward([feed(s, tokens, 0, len(tokens[0]))])[0])\n"
        "pickle.dump(found, open(sys.argv[1], 'wb'))\n"
    )
    for one, other in zip(
        *(run_with(name, code, tmp_path) for name in ("amx", "avx512")), strict=True
    ):
        assert np.array_equal(one, other)


def test_a_long_prompt_in_tiles():
    """Part A of several chunks of queries and pages, alone and in company, for every kind of weights."""
    model = random_model(max_sequence_length=512, hidden_size=96, num_attention_heads=2)
    tokens, other = sample(model, 300, 4), sample(model, 33, 4, seed=1)
    for name in TOLERANCE:
        runner = native(model, name, threads=2)
        first, second = runner.open(), runner.open()
        feeds = [feed(first, tokens, 0, 304, 300), feed(second, other, 0, 37, 33)]
        found = runner.forward(feeds)
        for logits, texts, prefix in ((found[0], tokens, 300), (found[1], other, 33)):
            assert close(logits, reference(as_understood(model, name), texts, prefix), name), name
        assert close(read(runner, other, 33, []), found[1], name)


def test_weights_of_another_model_are_refused():
    weights = NativeWeights.of(random_model().config, random_model().state_dict(), "int8")
    with pytest.raises(CheckpointError, match="the configuration wants"):
        NativeDecoder(random_model(hidden_size=32).config, weights)
