"""Sounds of two seconds: one to four beeps (`sample`, `render`), and spoken digits (`speech.py`).

In: a random generator. Out: a `Sound` that says the truth about it, and 16-bit samples at 16 kHz.
Notes of a sound stay within its pitch's range, so low, middle and high are true of rising and falling ones too.
"""

from __future__ import annotations

import io
import wave
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import speech
from scenes import pick

RATE = 16_000
SECONDS = 2.0

PITCHES = {"low": (220.0, 400.0), "middle": (600.0, 1080.0), "high": (1500.0, 2500.0)}
"""Ranges of the notes' fundamental frequencies in Hz: a gap of half an octave lies between two."""

TIMBRES = ("sine", "square", "saw", "noise", "bell")
BELL = {1.0: 1.0, 2.76: 0.6, 5.4: 0.35}
"""Partials of a bell, as those of a free bar lie: factor of the note's frequency -> loudness."""
DYING = 3.0
"""A bell dies away, by the factor e so often in a beep: at its end a twentieth is left."""
NOISE_WIDTH = 0.3
"""Octaves from the middle of a noise's band to where its loudness has fallen to 0.6."""
SEQUENCES = ("rising", "falling", "flat")
INTERVALS = {"fast": (0.17, 0.22), "medium": (0.27, 0.33), "slow": (0.39, 0.46)}
"""Tempos and the time from a beep to the next, in seconds."""

UNNAMED = 0.6
"""Share of training's beeps at any pitch and tempo, with a name or without: who knows timbres at three pitches only has no
reason to tell one from the other, and says of a pair that it never heard what it heard there."""
ANY_PITCH, PITCH_WIDTH = (150.0, 2200.0), 1.8
"""Where the range of their notes may begin, in Hz, and how many times as high it ends."""
ANY_INTERVAL, INTERVAL_WIDTH = (0.12, 0.4), 1.25
"""Where the range of their intervals may begin, in seconds, and how many times as long it ends."""

HELD_OUT_TONES = frozenset({("middle", "square"), ("high", "noise")})
"""Pairs (pitch, timbre), two of fifteen, that training never has; three timbres are heard at every pitch."""

HELD_OUT_MELODIES = frozenset({("falling", "medium")})
"""Pairs (sequence, tempo), one of nine, that training never has."""

SPOKEN = 0.3
"""Share of sounds that are spoken digits, where espeak-ng is installed."""

HIGHEST = 7_600.0
"""Harmonics above this frequency in Hz are left out: they would come back as others (aliasing)."""

SECOND_PARTIAL = {"sine": 1.0, "square": 3.0, "saw": 2.0, "noise": 1.0, "bell": sorted(BELL)[1]}
"""Times a note's frequency: without it a timbre is a sine's."""


@dataclass(frozen=True)
class Sound:
    """Beeps: `notes` are frequencies in Hz, times are in seconds.

    `sequence` and `tempo` are None of a single one; `pitch` and `tempo` where they lie between those that have names.
    """

    pitch: str | None
    timbre: str
    count: int
    sequence: str | None
    tempo: str | None
    notes: tuple[float, ...]
    start: float
    interval: float
    length: float
    loudness: float

    @property
    def tone(self) -> tuple[str | None, str]:
        return self.pitch, self.timbre

    @property
    def melody(self) -> tuple[str | None, str | None]:
        return self.sequence, self.tempo

    def truth(self) -> dict[str, Any]:
        truth = asdict(self) | {"notes": [round(note, 1) for note in self.notes]}
        return {"type": "beeps"} | {
            k: round(v, 4) if isinstance(v, float) else v for k, v in truth.items()
        }


def sample(rng: np.random.Generator, held_out: bool = False) -> Sound | speech.Digit:
    """Draws what is heard; with `held_out` a held-out pair (pitch, timbre) or (sequence, tempo), or an unheard voice."""
    if speech.available() and rng.random() < SPOKEN:
        return speech.sample(rng, held_out)
    if held_out:
        return _beeps(rng, "tone" if rng.integers(2) == 0 else "melody")
    while True:
        sound = _beeps(rng, any_=bool(rng.random() < UNNAMED))
        tones = {(_named(note, PITCHES), sound.timbre) for note in sound.notes}
        unheard = tones & HELD_OUT_TONES or sound.melody in HELD_OUT_MELODIES
        if not unheard and max(sound.notes) * SECOND_PARTIAL[sound.timbre] < HIGHEST:
            return sound


def _beeps(rng: np.random.Generator, unheard: str | None = None, any_: bool = False) -> Sound:
    """Draws beeps: with names that training hears, with a pair that it does not hear, or at `any_` pitch and tempo."""
    tones = [(p, t) for p in PITCHES for t in TIMBRES if (p, t) not in HELD_OUT_TONES]
    melodies = [(s, t) for s in SEQUENCES for t in INTERVALS if (s, t) not in HELD_OUT_MELODIES]
    pitch, timbre = pick(rng, sorted(HELD_OUT_TONES) if unheard == "tone" else tones)
    sequence, tempo = pick(rng, sorted(HELD_OUT_MELODIES) if unheard == "melody" else melodies)
    heights, intervals = PITCHES[pitch], INTERVALS[tempo]
    if any_:
        timbre, sequence = pick(rng, TIMBRES), pick(rng, SEQUENCES)
        heights = _begins(rng, ANY_PITCH, PITCH_WIDTH)
        intervals = _begins(rng, ANY_INTERVAL, INTERVAL_WIDTH)
    count = int(rng.integers(2 if unheard == "melody" else 1, 5))
    interval = rng.uniform(*intervals)
    length = interval * rng.uniform(0.55, 0.75)
    lasts = interval * (count - 1) + length
    notes = _notes(rng, heights, sequence if count > 1 else "flat", count)
    pitches = {_named(note, PITCHES) for note in notes}
    return Sound(
        pitch=pitches.pop() if len(pitches) == 1 else None,
        timbre=timbre,
        count=count,
        sequence=sequence if count > 1 else None,
        tempo=_named(interval, INTERVALS) if count > 1 else None,
        notes=notes,
        start=float(rng.uniform(0.02, SECONDS - lasts - 0.02)),
        interval=float(interval),
        length=float(length),
        loudness=float(rng.uniform(0.15, 0.8)),
    )


def _begins(
    rng: np.random.Generator, where: tuple[float, float], width: float
) -> tuple[float, float]:
    """Draws a range that begins anywhere, evenly to the ear."""
    low = float(np.exp(rng.uniform(*np.log(where))))
    return low, low * width


def _named(value: float, ranges: dict[str, tuple[float, float]]) -> str | None:
    return next((name for name, (low, high) in ranges.items() if low <= value <= high), None)


def _notes(
    rng: np.random.Generator, heights: tuple[float, float], sequence: str, count: int
) -> tuple[float, ...]:
    """Returns frequencies in Hz, in equal steps of the ear: seven to eight and a half semitones from first to last."""
    low, high = heights
    if sequence == "flat":
        return (float(rng.uniform(low, high)),) * count
    ratio = 2 ** (rng.uniform(7.0, 8.5) / 12)
    bottom = rng.uniform(low, high / ratio)
    notes = [float(bottom * ratio ** (step / (count - 1))) for step in range(count)]
    return tuple(notes if sequence == "rising" else notes[::-1])


# -- samples


def render(sound: Sound | speech.Digit, rng: np.random.Generator) -> np.ndarray:
    """Returns the samples [32000], int16; a faint hiss of random strength lies below the sound."""
    samples = rng.normal(0, 10 ** rng.uniform(-4, -2.5), int(RATE * SECONDS))
    if isinstance(sound, speech.Digit):
        spoken = speech.speak(sound, RATE)[: len(samples)]
        start = int(rng.integers(len(samples) - len(spoken) + 1))
        samples[start : start + len(spoken)] += sound.loudness * spoken
    else:
        for index, note in enumerate(sound.notes):
            start = round((sound.start + index * sound.interval) * RATE)
            beep = sound.loudness * beep_samples(sound.timbre, note, sound.length, rng)
            samples[start : start + len(beep)] += beep
    return (samples.clip(-1, 1) * 32767).round().astype(np.int16)


def beep_samples(
    timbre: str, frequency: float, length: float, rng: np.random.Generator
) -> np.ndarray:
    """Returns a beep of peak 1, `length` in seconds, `frequency` of its fundamental in Hz (of noise: of its middle)."""
    time = np.arange(round(length * RATE)) / RATE
    if timbre == "noise":
        spectrum = np.fft.rfft(rng.normal(0, 1, len(time)))
        octaves = np.log2(np.maximum(np.fft.rfftfreq(len(time), 1 / RATE), 1) / frequency)
        wave_form = np.fft.irfft(spectrum * np.exp(-0.5 * (octaves / NOISE_WIDTH) ** 2), len(time))
    elif timbre == "bell":
        sounding = [(factor, loud) for factor, loud in BELL.items() if factor * frequency < HIGHEST]
        partials = [
            loud * np.sin(2 * np.pi * factor * frequency * time + rng.uniform(0, 2 * np.pi))
            for factor, loud in sounding
        ]
        wave_form = np.sum(partials, axis=0) * np.exp(-DYING * time / length)
    else:
        # Fourier series of the square wave (odd harmonics) and of the saw (all of them)
        step = {"sine": int(HIGHEST), "square": 2, "saw": 1}[timbre]
        harmonics = np.arange(1, max(int(HIGHEST / frequency), 1) + 1, step)[:, None]
        phase = 2 * np.pi * frequency * harmonics * time + rng.uniform(0, 2 * np.pi)
        wave_form = (np.sin(phase) / harmonics).sum(axis=0)
    edge = np.minimum(np.minimum(time, time[::-1]) / 0.008, 1)  # 8 ms: no click at either end
    wave_form = wave_form * edge
    return wave_form / np.abs(wave_form).max()


def wav_bytes(samples: np.ndarray) -> bytes:
    """Returns a WAV file, mono, 16 bits."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()
