"""A GLM's weights in the native layout: made from a model, saved, memory-mapped, turned back.

In: a configuration and named tensors or arrays, or a folder that `write` or `save` wrote. Out: `NativeWeights`, which are NumPy arrays; torch is
imported where they are turned back into tensors.

    quantized.safetensors   matrices as `NAME`, then their other parts, all `NAME.scales`, `NAME.zeros`, `NAME.firsts` and
                            `NAME.strays` (`packing.Packed`); vectors as float32 under their names; the recipe (the quantization, and each matrix's format and shape) in the file's metadata
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glmkit.checkpoint.mapped import (
    arrays_in_memory,
    json_object,
    let_go,
    map_arrays,
    new_arrays,
    write_arrays,
)
from glmkit.checkpoint.packing import (
    PARTS,
    Packed,
    as_numbers,
    is_whole,
    pack,
    part_sizes,
    some_rows,
    unpack,
    widened,
)
from glmkit.errors import CheckpointError, ConfigError, nearest

if TYPE_CHECKING:
    import torch

FILE = "quantized.safetensors"

VERSION = "1"

QUANTIZATIONS = ("float32", "bfloat16", "int8", "int4")
"""What a model's weights can be asked to be."""

EXACT = {"float16": "float16", "uint16": "bfloat16"}
"""Number type of an array that float32 is asked of -> format that holds it without loss, in fewer bytes."""

ENDS = {name: "" if name == "data" else f".{name}" for name in PARTS}
"""Part of a matrix -> end of its name."""

WORDS = "glm.word_embeddings.weight"
LAYER = "glm.transformer.layers.{}."
MATRICES = (
    "attention.query_key_value.weight",
    "attention.dense.weight",
    "mlp.dense_h_to_4h.weight",
    "mlp.dense_4h_to_h.weight",
)
"""Of each layer, in the order of the library's roles 1 to 4 (role 0 is the word embedding)."""

VECTORS = (
    "input_layernorm.weight",
    "input_layernorm.bias",
    "attention.query_key_value.bias",
    "attention.dense.bias",
    "post_attention_layernorm.weight",
    "post_attention_layernorm.bias",
    "mlp.dense_h_to_4h.bias",
    "mlp.dense_4h_to_h.bias",
)
"""Of each layer, in the order of the library's roles 0 to 7."""

TABLES = (
    "glm.transformer.final_layernorm.weight",
    "glm.transformer.final_layernorm.bias",
    "glm.transformer.position_embeddings.weight",
    "glm.transformer.block_position_embeddings.weight",
)
"""Roles 8 to 11."""


@dataclass(frozen=True, eq=False)
class NativeWeights:
    """Weights that the native decoder reads.

    Attributes:
        quantization: One of `QUANTIZATIONS`. Of float32 some matrices may be of 16 bits, which hold the same numbers.
        matrices: Name -> packed matrix.
        vectors: Name -> float32, of any shape.
    """

    quantization: str
    matrices: dict[str, Packed]
    vectors: dict[str, np.ndarray]

    @classmethod
    def of(cls, config: Any, state: State, quantization: str) -> NativeWeights:
        """Returns a model's weights packed.

        Args:
            config: The model's `GLMConfig` or `Architecture`.
            state: Its tensors by name (`model.state_dict()`), arrays (`packing.as_numbers`), or packed weights.
            quantization: One of `QUANTIZATIONS`.

        Raises:
            ConfigError: No such quantization.
        """
        matrices = _matrices(config, state, quantization)
        arrays = arrays_in_memory(_wanted(config, matrices))
        return cls._filled(arrays, config, matrices, state, quantization)

    @classmethod
    def write(cls, folder: Path, config: Any, state: State, quantization: str) -> None:
        """Writes a model's weights into a folder while they are packed, one in memory at a time; the file appears when it is complete.

        Where there are matrices of bfloat16, whose sizes are known when they are packed, all are in memory.

        Args:
            folder: Where `load` finds them.
            config: As for `of`.
            state: As for `of`.
            quantization: As for `of`.

        Raises:
            ConfigError: No such quantization.
            OSError: The disk has no room for the file.
        """
        matrices = _matrices(config, state, quantization)
        if any(format == "bfloat16" for format, _ in matrices.values()):
            return cls.of(config, state, quantization).save(folder)
        temporary, recipe = folder / f".{FILE}.tmp", _recipe(quantization, matrices)
        arrays = new_arrays(temporary, _wanted(config, matrices), recipe)
        cls._filled(arrays, config, matrices, state, quantization)
        del arrays  # a file that is mapped cannot be renamed everywhere
        temporary.rename(folder / FILE)

    @classmethod
    def _filled(
        cls,
        arrays: dict[str, np.ndarray],
        config: Any,
        wanted: Matrices,
        state: State,
        quantization: str,
    ) -> NativeWeights:
        matrices = {}
        for name, (format, shape) in wanted.items():
            numbers = as_numbers(state[name])
            parts = {part: arrays[name + ENDS[part]] for part in part_sizes(format, shape)}
            matrices[name] = pack(numbers, format, into=parts)
            let_go(numbers)
            let_go(parts["data"])
        vectors = {name: arrays[name] for name in vector_names(config)}
        for name, array in vectors.items():
            array[...] = widened(as_numbers(state[name]))
        return cls(quantization, matrices, vectors)

    @property
    def nbytes(self) -> int:
        """Bytes in memory and, almost, on disk."""
        return sum(array.nbytes for array in self._arrays().values())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Returns the weights as float32 tensors by name, as the native decoder understands them."""
        import torch

        # What is mapped from a file can never be written to, which a tensor may be.
        return {
            name: torch.from_numpy(one if one.flags.writeable else one.copy())
            for name, one in self.items()
        }

    def __getitem__(self, name: str) -> np.ndarray:
        """Returns a weight as float32, as the native decoder understands it."""
        packed = self.matrices.get(name)
        return self.vectors[name] if packed is None else unpack(packed)

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields names, in order, and weights as float32, as the native decoder understands them, one in memory at a time."""
        for name in sorted([*self.matrices, *self.vectors]):
            yield name, self[name]

    def save(self, folder: Path) -> None:
        """Writes the file into a folder; it appears when it is complete."""
        matrices = {name: (one.format, one.shape) for name, one in self.matrices.items()}
        temporary = folder / f".{FILE}.tmp"
        write_arrays(temporary, self._arrays(), _recipe(self.quantization, matrices))
        temporary.rename(folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> NativeWeights:
        """Maps the file of a folder into memory; pages are read when they are used.

        Raises:
            CheckpointError: The file is not there, damaged, or of another version of glmkit.
        """
        path = folder / FILE
        try:
            recipe, arrays = map_arrays(path)
            if recipe.get("version") != VERSION:
                raise CheckpointError(
                    f"{path} was written by another version of glmkit (format {recipe.get('version')}, this one reads "
                    f"{VERSION}); quantize the model again"
                )
            quantization = recipe["quantization"]
            check_quantization(quantization)
            shapes = json_object(recipe["matrices"])
            matrices = {name: _taken(arrays, name, told) for name, told in shapes.items()}
            if wrong := [name for name, one in arrays.items() if one.dtype != np.float32]:
                raise ValueError(f"{wrong[0]!r} is no matrix and not of float32")
        except CheckpointError:
            raise
        except (OSError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"Cannot read {path}: missing, damaged or cut short ({error}). Quantize the model again."
            ) from error
        return cls(quantization, matrices, arrays)

    def _arrays(self) -> dict[str, np.ndarray]:
        """Name -> array, in the order of a file."""
        matrices = {
            f"{name}{end}": one.parts[part]
            for part, end in ENDS.items()
            for name, one in self.matrices.items()
            if part in one.parts
        }
        return {**matrices, **self.vectors}


Matrices = dict[str, tuple[str, tuple[int, int]]]
"""Format and shape of each of a model's matrices by name."""


def _matrices(config: Any, state: State, quantization: str) -> Matrices:
    """Returns the matrices that a model's are packed as.

    Raises:
        ConfigError: No such quantization.
    """
    check_quantization(quantization)
    shapes, formats = shapes_of(config), dict.fromkeys(matrix_names(config), quantization)
    if quantization == "float32":
        formats = {name: EXACT.get(_number(state, name), "float32") for name in formats}
    return {name: (format, shapes[name]) for name, format in formats.items()}


def _number(state: State, name: str) -> str:
    """Returns the number type of a weight as `as_numbers` gives it; packed ones are unpacked to float32."""
    if isinstance(state, NativeWeights):
        return "float32"
    return as_numbers(state[name][:0]).dtype.name


def _wanted(config: Any, matrices: Matrices) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns number type and shape of a model's arrays by name, in the order of a file: whole cache lines first."""
    shapes = shapes_of(config)
    arrays: dict[str, tuple[str, tuple[int, ...]]] = {
        f"{name}{end}": (sizes[part][0], (sizes[part][1],))
        for part, end in ENDS.items()
        for name, matrix in matrices.items()
        if part in (sizes := part_sizes(*matrix))
    }
    return arrays | {name: ("float32", shapes[name]) for name in vector_names(config)}


def _recipe(quantization: str, matrices: Matrices) -> dict[str, str]:
    """Returns a file's metadata."""
    told = {name: [format, *shape] for name, (format, shape) in matrices.items()}
    return {"version": VERSION, "quantization": quantization, "matrices": json.dumps(told)}


def _taken(arrays: dict[str, np.ndarray], name: str, told: Any) -> Packed:
    """Returns the matrix whose format, rows and columns a recipe tells, and takes its parts out of the arrays."""
    if not isinstance(told, list) or [type(one) for one in told] != [str, int, int]:
        raise ValueError(f"{name!r} is a matrix of {told}")
    parts = {part: arrays.pop(name + end) for part, end in ENDS.items() if name + end in arrays}
    if "data" not in parts:
        raise ValueError(f"{name!r} is not there")
    packed = Packed(told[0], (told[1], told[2]), **parts)
    if not is_whole(packed):
        raise ValueError(f"{name!r} is not a whole matrix of {told}")
    return packed


State = Mapping[str, "torch.Tensor | np.ndarray"] | NativeWeights
"""A model's weights by name."""


def rows_of(state: State, name: str, first: int = 0, last: int | None = None) -> np.ndarray:
    """Returns the rows of a weight from `first`, of packed ones a multiple of 16, to `last` as float32.

    What is mapped from a file is copied, and its memory given back.
    """
    packed = state.matrices.get(name) if isinstance(state, NativeWeights) else None
    if packed is not None:
        some = some_rows(packed, first, packed.shape[0] if last is None else last)
        found = unpack(some)
        let_go(some.data)
        return found
    numbers = as_numbers(state[name])[first:last]
    if numbers.flags.writeable:
        return widened(numbers)
    found = np.array(widened(numbers))
    let_go(numbers)
    return found


def check_quantization(name: str) -> None:
    """Refuses an unknown quantization.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in QUANTIZATIONS:
        raise ConfigError(
            f"no quantization {name!r}; there are {', '.join(QUANTIZATIONS)}{nearest(name, QUANTIZATIONS)}"
        )


def matrix_names(config: Any) -> Iterator[str]:
    """Yields the names of a model's matrices."""
    yield WORDS
    for layer in range(config.num_layers):
        for name in MATRICES:
            yield LAYER.format(layer) + name


def vector_names(config: Any) -> Iterator[str]:
    """Yields the names of everything else."""
    for layer in range(config.num_layers):
        for name in VECTORS:
            yield LAYER.format(layer) + name
    yield from TABLES if config.block_position_encoding else TABLES[:3]


def shapes_of(config: Any) -> dict[str, Any]:
    """Returns the shape of each of a model's weights by name."""
    hidden, mlp = config.hidden_size, config.intermediate_size
    sizes = {
        WORDS: (config.vocab_size, hidden),
        MATRICES[0]: (3 * hidden, hidden),
        MATRICES[1]: (hidden, hidden),
        MATRICES[2]: (mlp, hidden),
        MATRICES[3]: (hidden, mlp),
        VECTORS[2]: (3 * hidden,),
        VECTORS[6]: (mlp,),
        **dict.fromkeys(TABLES[2:], (config.max_sequence_length + 1, hidden)),
    }
    names = (*matrix_names(config), *vector_names(config))
    ends = (name.partition(".layers.")[2].partition(".")[2] for name in names)
    return {
        name: sizes.get(name) or sizes.get(end) or (hidden,)
        for name, end in zip(names, ends, strict=True)
    }


def check_shapes(config: Any, weights: NativeWeights, where: str) -> None:
    """Refuses weights that a configuration does not describe: the native decoder trusts their sizes.

    Raises:
        CheckpointError: A tensor is missing or of another size.
    """
    found: dict[str, tuple[int, ...]] = {
        **{name: one.shape for name, one in weights.matrices.items() if is_whole(one)},
        **{name: one.shape for name, one in weights.vectors.items() if one.dtype == np.float32},
    }
    for name, expected in shapes_of(config).items():
        if found.get(name) != expected:
            raise CheckpointError(
                f"{where}: {name} has the shape {found.get(name)}, the configuration wants {expected}; "
                "the file and config.json are not of one model. Quantize the model again"
            )
