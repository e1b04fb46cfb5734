"""The name of a tokenizer -> the folder that has its vocabulary, and whose vocabulary that is.

In: a folder, the name of an embedded model, or a name on the hub, from which the files are fetched. Out: a local folder. Reads no
vocabulary.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from glmkit.embedded import embedded_folder
from glmkit.errors import CheckpointError, TokenizerError
from glmkit.special_tokens import published_kind
from glmkit.tokens.published import VOCABULARY_FILES, read_json

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "adapter_config.json",
    *sorted({name for names in VOCABULARY_FILES.values() for name in names}),
)
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def find_folder(name: str | Path, hub_options: dict[str, Any]) -> Path:
    """Returns the folder called `name`, fetched from the hub if it is neither embedded nor a local one."""
    try:
        if (embedded := embedded_folder(name)) is not None:
            return embedded
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error
    folder = Path(name)
    if folder.is_dir():
        return folder
    if isinstance(name, Path) and not folder.exists():
        raise TokenizerError(f"There is no folder {str(name)!r}.")
    if folder.exists() or not _HUB_NAME.fullmatch(str(name)):
        raise TokenizerError(
            f"{str(name)!r} is not a folder, and not a hub name such as 'THUDM/glm-large-chinese'."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(_FILES), **hub_options))
    except (OSError, ValueError) as error:  # all of the hub's errors are one of these
        raise TokenizerError(
            f"There is no folder {str(name)!r}, and the tokenizer of that name could not be fetched from the hub "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). Check the spelling; or connect to the network "
            f"and unset HF_HUB_OFFLINE; or, on a machine that is connected, run `hf download {name} --local-dir DIR`, "
            "copy DIR here and give its path."
        ) from error


def base_of(folder: Path) -> str | None:
    """Returns the model to which a folder's adapter belongs; None where it has no adapter, or one that names none."""
    return read_json(folder / "adapter_config.json").get("base_model_name_or_path")


def kind_of(folder: Path) -> str | None:
    """Returns which published vocabulary `folder` holds, or None for glmkit's own format."""
    read_json(folder / "tokenizer_config.json")  # complains about damage with the file's name
    return published_kind(folder)
