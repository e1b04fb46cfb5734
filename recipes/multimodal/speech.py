"""Digits spoken by espeak-ng in Chinese and English, where that program is installed (`available`).

In: a random generator. Out: a `Digit` that says the truth about it, and its samples at a given rate.
Some voices are held out: they speak only where they are asked for.
"""

from __future__ import annotations

import functools
import io
import shutil
import subprocess
import wave
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scenes import pick

WORDS = {
    "zh": tuple("零一二三四五六七八九"),
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
}
ACCENTS = {"zh": ("cmn",), "en": ("en-us", "en-gb")}
"""espeak-ng's names of the languages."""

VOICES = ("m1", "m2", "m3", "m5", "m7", "m8", "f1", "f2", "f3", "f5", "klatt2", "klatt4")
HELD_OUT_VOICES = ("m4", "m6", "f4")


@dataclass(frozen=True)
class Digit:
    """A spoken digit: `speed` in words a minute, `voice_pitch` from 0 to 99, both as espeak-ng counts them."""

    digit: int
    spoken_language: str
    voice: str
    speed: int
    voice_pitch: int
    loudness: float

    def truth(self) -> dict[str, Any]:
        return {"type": "digit"} | asdict(self) | {"loudness": round(self.loudness, 4)}


@functools.cache
def available() -> bool:
    return shutil.which("espeak-ng") is not None


def sample(rng: np.random.Generator, held_out: bool = False) -> Digit:
    """Draws a digit, its language, and a voice that training hears (with `held_out`: one that it does not)."""
    language = pick(rng, tuple(WORDS))
    return Digit(
        digit=int(rng.integers(10)),
        spoken_language=language,
        voice=f"{pick(rng, ACCENTS[language])}+{pick(rng, HELD_OUT_VOICES if held_out else VOICES)}",
        speed=int(rng.integers(110, 200)),
        voice_pitch=int(rng.integers(25, 76)),
        loudness=float(rng.uniform(0.3, 0.9)),
    )


def speak(digit: Digit, rate: int) -> np.ndarray:
    """Returns the samples of a spoken digit, peak 1, silence at both ends cut off.

    Raises:
        subprocess.CalledProcessError: espeak-ng has failed; its words are on the standard error.
    """
    word = WORDS[digit.spoken_language][digit.digit]
    options = ["-v", digit.voice, "-s", str(digit.speed), "-p", str(digit.voice_pitch)]
    command = ["espeak-ng", *options, "--stdout", word]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    with wave.open(io.BytesIO(answer)) as file:
        spoken_rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
    # A pipe has no length to go back to: the header's is a placeholder, and what was read ends where the data does.
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return resample(samples[loud[0] : loud[-1] + 1], spoken_rate, rate)


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Returns samples at a lower rate, peak 1: their spectrum, cut at the new rate's half."""
    length = round(len(samples) * wanted / rate)
    lower = np.fft.irfft(np.fft.rfft(samples)[: length // 2 + 1], length)
    return lower / np.abs(lower).max()
