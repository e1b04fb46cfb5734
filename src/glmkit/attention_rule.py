"""The one rule that says which token of a GLM row may look at which other token.

Written with operators only, so that the same lines serve NumPy arrays (layout), torch tensors (dense
masks) and FlexAttention's index tensors (block masks).
"""

from __future__ import annotations

from typing import Any


def may_attend(*, query_index: Any, key_index: Any, key_in_part_b: Any, key_is_visible: Any) -> Any:
    """Returns whether a query may attend to a key (GLM paper, section 2.1 and figure 2c).

    Part A is seen by everyone; a token of part B is seen by itself and by what follows it. Part A comes
    first in a row (or in its segment of a packed row), so part A never sees part B.

    Args:
        query_index: Index of the query in its row.
        key_index: Index of the key in its row.
        key_in_part_b: Whether the key belongs to part B.
        key_is_visible: Whether the key is a real token (not padding) of the query's own sample.

    Returns:
        A boolean (array) of the arguments' broadcast shape.
    """
    return key_is_visible & (~key_in_part_b | (key_index <= query_index))
