"""The table of sounds comes out of poems alone: by a made-up language, and by real poems."""

from __future__ import annotations

import gzip
import itertools
import json

import numpy as np

from glmkit.applications.poetry.learning import CI, SHI, learn_table, learn_tones, spread
from glmkit.applications.poetry.sounds import Sound, read_table, sounds


def test_tones_come_out_although_today_says_otherwise():
    """Poets of a made-up language put 白 and 国 (level today) into oblique places; the rest is as today."""
    rng = np.random.default_rng(0)
    level, oblique = list("春山风云天花"), list("月水草下白国")
    characters = level + oblique
    patterns = "仄仄平平仄平平仄仄平平平平仄仄仄仄仄平平"
    poems = np.array(
        [[rng.integers(6) + 6 * (symbol == "仄") for symbol in patterns] for _ in range(300)]
    )
    seen_level, seen_oblique, kept = learn_tones({(5, 4): poems}, characters)
    share = seen_level / (seen_level + seen_oblique)
    assert (share[:6] > 0.95).all()
    assert (share[6:] < 0.05).all()
    assert len(kept[5, 4][0]) == 300


def test_groups_spread_to_neighbours_of_neighbours():
    number = {character: index for index, character in enumerate("甲乙丙丁戊己庚")}
    links = [(0, 1), (1, 2), (3, 4), (5, 0), (5, 3)]
    first, second = np.array([*links, *((b, a) for a, b in links)]).T
    shares, count = spread(
        (first, second, np.ones(len(first))), {"x": "甲", "y": "丁", "z": "庚"}, number, rounds=9
    )
    assert shares[1].argmax() == shares[2].argmax() == 0
    assert shares[4].argmax() == 1
    assert shares[5].tolist() == [0.5, 0.5, 0]  # between two groups: not sure
    assert count.tolist() == [2, 2, 1, 2, 1, 2, 0]


def test_real_poems_teach_the_entering_tone_and_the_rhymes(shared_data):
    """A fiftieth of the poems is enough for the common characters; the shipped table says the same of them."""
    with gzip.open(shared_data / "poems.train.jsonl.gz", "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in itertools.islice(file, 8000)]
    table = learn_table(records)
    learnt = read_table(table, for_tunes=False)
    shipped = sounds("pingshui")
    for character in "白国十竹发得别石月日不一":
        assert {sound.tone for sound in learnt[character]} == {"仄"}, character
    assert learnt["楼"] == (Sound("平", "尤"),)
    common = list(learnt)[:800]
    same = [learnt[c][0].tone == shipped.readings(c)[0].tone for c in common]
    assert sum(same) > 0.97 * len(same)
    assert learn_table(iter(records[:300])) == learn_table(records[:300])


def test_seeds_are_in_one_group_each():
    members = [character for group in SHI.values() for character in group]
    assert len(members) == len(set(members))
    assert len(SHI) == 30
    assert len(CI) == 19
