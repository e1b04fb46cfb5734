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
NOISE_WIDTH = 0.3
"""Octaves from the middle of a noise's band to where its loudness has fallen to 0.6."""
SEQUENCES = ("rising", "falling", "flat")
INTERVALS = {"fast": (0.17, 0.22), "medium": (0.27, 0.33), "slow": (0.39, 0.46)}
"""Tempos and the time from a beep to the next, in seconds."""

HELD_OUT_TONES = frozenset({("middle", "square"), ("high", "noise")})
"""Pairs (pitch, timbre), two of fifteen, that training never has; three timbres are heard at every pitch."""

HELD_OUT_MELODIES = frozenset({("falling", "medium")})
"""Pairs (sequence, tempo), one of nine, that training never has."""

SPOKEN = 0.3
"""Share of sounds that are spoken digits, where espeak-ng is installed."""

HIGHEST = 7_600.0
"""Harmonics above this frequency in Hz are left out: they would come back as others (aliasing)."""


@dataclass(frozen=True)
class Sound:
    """Beeps: `sequence` and `tempo` are None of a single one; `notes` are frequencies in Hz, times are in seconds."""

    pitch: str
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
    def tone(self) -> tuple[str, str]:
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
    unheard = int(rng.integers(2)) if held_out else None
    tones = [(p, t) for p in PITCHES for t in TIMBRES if (p, t) not in HELD_OUT_TONES]
    melodies = [(s, t) for s in SEQUENCES for t in INTERVALS if (s, t) not in HELD_OUT_MELODIES]
    pitch, timbre = pick(rng, sorted(HELD_OUT_TONES) if unheard == 0 else tones)
    sequence, tempo = pick(rng, sorted(HELD_OUT_MELODIES) if unheard == 1 else melodies)
    count = int(rng.integers(2 if unheard == 1 else 1, 5))
    interval = rng.uniform(*INTERVALS[tempo])
    length = interval * rng.uniform(0.55, 0.75)
    lasts = interval * (count - 1) + length
    return Sound(
        pitch=pitch,
        timbre=timbre,
        count=count,
        sequence=sequence if count > 1 else None,
        tempo=tempo if count > 1 else None,
        notes=_notes(rng, pitch, sequence if count > 1 else "flat", count),
        start=float(rng.uniform(0.02, SECONDS - lasts - 0.02)),
        interval=float(interval),
        length=float(length),
        loudness=float(rng.uniform(0.15, 0.8)),
    )


def _notes(rng: np.random.Generator, pitch: str, sequence: str, count: int) -> tuple[float, ...]:
    """Returns frequencies in Hz, in equal steps of the ear: seven to eight and a half semitones from first to last."""
    low, high = PITCHES[pitch]
    if sequence == "flat":
        return (float(rng.uniform(low, high)),) * count
    ratio = 2 ** (rng.uniform(7.0, 8.5) / 12)
    bottom = rng.uniform(low, high / ratio)
    notes = [float(bottom * ratio ** (step / (count - 1))) for step in range(count)]
    return tuple(notes if sequence == "rising" else notes[::-1])


AUDIBLE = (150.0, 4000.0)
"""Lowest and highest frequency in Hz of a note that is played at another speed: beyond the pitches at either end."""


def at_speed(scene: dict[str, Any], speed: float) -> dict[str, Any] | None:
    """Returns what is true of a sound (`truth`) that is played so many times as fast.

    Its `pitch` and `tempo` are None where they lie between two of those that have names. None is returned where it is no sound of
    training any more: it would not end in time, would be far below or above all pitches, or have a pair that is held out.
    """
    if scene["type"] == "digit":
        return scene if 1.0 <= speed <= 1.1 else None
    notes = [note * speed for note in scene["notes"]]
    changed = scene | {"notes": notes} | {k: scene[k] / speed for k in ("start", "interval", "length")}  # fmt: skip
    ends = changed["start"] + changed["interval"] * (scene["count"] - 1) + changed["length"]
    if ends > SECONDS or min(notes) < AUDIBLE[0] or max(notes) > AUDIBLE[1]:
        return None
    pitches = {_named(note, PITCHES) for note in notes}
    tempo = _named(changed["interval"], INTERVALS) if scene["tempo"] else None
    tones = {(pitch, scene["timbre"]) for pitch in pitches}
    if tones & HELD_OUT_TONES or (scene["sequence"], tempo) in HELD_OUT_MELODIES:
        return None
    pitch = pitches.pop() if len(pitches) == 1 else None
    return changed | {"pitch": pitch, "tempo": tempo}


def _named(value: float, ranges: dict[str, tuple[float, float]]) -> str | None:
    return next((name for name, (low, high) in ranges.items() if low <= value <= high), None)


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
        wave_form = np.sum(partials, axis=0) * np.exp(-time / length)
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
