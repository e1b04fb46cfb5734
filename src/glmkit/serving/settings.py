"""What a server allows and how it behaves: plain values, checked together.

In: what a user gave. Out: `ServingSettings`. Knows no HTTP library and no model; keys of an environment and of a file are read by
`read_keys`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from glmkit.errors import ConfigError

KEYS_VARIABLE = "GLMKIT_API_KEYS"
"""Environment variable with keys, separated by commas."""


@dataclass(frozen=True)
class ServingSettings:
    """Settings of one server.

    Attributes:
        name: What clients call the model; a name and never a path.
        host: Address it listens at; by default this machine alone reaches it.
        port: Port.
        api_keys: A client must show one of them; with none, everybody who reaches the server may use it.
        open_to_all: Whether a server that other machines reach may be without keys.
        max_batch: Most texts that are written at once.
        max_queue: Most texts that wait for that; beyond it a request gets status 429.
        max_cache_tokens: Most tokens that running texts may come to together (None: twice the model's positions for each of
            `max_batch`).
        max_new_tokens: Most tokens of one blank that a request may ask for (None: as many as the model has positions).
        max_samples: Largest `n`.
        max_texts: Most texts of one request.
        max_explained: Most blanks and labels that one request has explained.
        max_characters: Most characters of one request's texts together.
        max_body_bytes: Largest request, what it has of media aside.
        max_media: Most images, sounds and clips of one request.
        max_media_bytes: Most bytes of them together, as files.
        max_media_pixels: Most pixels of them together that are decoded; of a clip, of all its frames.
        max_media_seconds: Most seconds of their sounds together.
        timeout: Seconds that a request may take, waiting included; a client may ask for less.
        workers: Threads for what is not on the engine (labels, scores, embeddings, the n likeliest).
        requests_per_minute: Most requests of one key, or without keys of one address (0 = no limit).
        cors_origins: Web pages' origins that browsers may call from; none unless asked.
        grace: Seconds that running requests may go on when the server is told to stop.
        log_text: Whether what users write and get is logged.
    """

    name: str = "glm"
    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    open_to_all: bool = False
    max_batch: int = 8
    max_queue: int = 64
    max_cache_tokens: int | None = None
    max_new_tokens: int | None = None
    max_samples: int = 8
    max_texts: int = 64
    max_explained: int = 8
    max_characters: int = 100_000
    max_body_bytes: int = 1 << 20
    max_media: int = 8
    max_media_bytes: int = 16 << 20
    max_media_pixels: int = 1_000_000_000
    max_media_seconds: int = 600
    timeout: float = 120.0
    workers: int = 1
    requests_per_minute: int = 0
    cors_origins: tuple[str, ...] = ()
    grace: float = 30.0
    log_text: bool = False

    def __post_init__(self) -> None:
        least = {"port": 0, "max_queue": 0, "requests_per_minute": 0, "grace": 0}
        for name in (
            "max_batch", "max_samples", "max_texts", "max_explained", "max_characters", "max_body_bytes", "workers",
            "max_cache_tokens", "max_new_tokens", "max_media", "max_media_bytes", "max_media_pixels", "max_media_seconds",
        ):  # fmt: skip
            least[name] = 1
        problems = [
            f"{name}={value} must be at least {low}"
            for name, low in least.items()
            if (value := getattr(self, name)) is not None and not value >= low
        ]
        if self.port > 65535:
            problems.append(f"port={self.port} must be at most 65535")
        if not self.timeout > 0:
            problems.append(f"timeout={self.timeout} must be above 0 seconds")
        if not self.name or self.name != self.name.strip() or set(self.name) & set("/\\\0\n\r"):
            problems.append(
                f"name={self.name!r} must be a name, without slashes and line ends; clients choose the model by it"
            )
        if any(not key.strip() or not key.isascii() for key in self.api_keys):
            problems.append("api_keys must be ASCII strings that are not empty")
        if not (self.api_keys or self.open_to_all or is_loopback(self.host)):
            problems.append(
                f"host={self.host!r} is reached from other machines, and there is no API key: give keys (--api-key-file, or "
                f"{KEYS_VARIABLE}), or say that everybody may use it (--open-to-all)"
            )
        if problems:
            raise ConfigError("serving: " + "; ".join(problems))


def read_keys(
    given: Iterable[str], file: str | Path | None, environment: Mapping[str, str]
) -> tuple[str, ...]:
    """Returns all keys that were given: as they are, in a file (one a line; `#` begins a comment), in the environment.

    Raises:
        ConfigError: A file that cannot be read, or without a key.
    """
    keys = [*given, *environment.get(KEYS_VARIABLE, "").split(",")]
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the file of API keys {file} cannot be read ({error}); give a text file with one key a line"
            ) from None
        found = [line.split("#")[0].strip() for line in lines]
        if not any(found):
            raise ConfigError(f"the file of API keys {file} has no key; write one a line")
        keys += found
    return tuple(dict.fromkeys(key.strip() for key in keys if key.strip()))


def is_loopback(host: str) -> bool:
    """Returns whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
