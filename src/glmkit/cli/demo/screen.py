"""How the demo shows things: coloured and boxed in a terminal, plain lines in a log.

In: headings, calls, results. Out: text on standard output. Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from glmkit.cli.language import say

BAR_WIDTH = 24
PICTURE_SIDE = 32
LOG_WIDTH = 120


class Screen:
    """Standard output, written by parts."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, width=LOG_WIDTH)
        self.terminal = self.console.is_terminal

    def heading(self, title: str) -> None:
        """Begins a part."""
        from rich.rule import Rule
        from rich.text import Text

        self.console.print()
        if self.terminal:
            self.console.print(Rule(Text(title, style="bold"), align="left", style="cyan"))
        else:
            self.line(f"== {title}")

    def line(self, text: str = "", style: str = "") -> None:
        """Writes a line as it is; a terminal breaks it where it must."""
        self.console.print(text, style=style or None, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Writes a remark."""
        self.line(text, "dim")

    @contextmanager
    def call(self, code: str) -> Iterator[None]:
        """Shows the Python that is run in the block, and after it how long it took."""
        self.line(f">>> {code}", "green")
        started = monotonic()
        yield
        self.note(f"({monotonic() - started:.1f} {say('s', '秒')})")

    def pieces(self, texts: Iterable[str], style: str = "bold") -> None:
        """Writes pieces of one text as they come."""
        for text in texts:
            self.console.print(text, style=style, markup=False, soft_wrap=True, end="")
            self.console.file.flush()
        self.console.print()

    def picture(self, path: Path) -> None:
        """Shows a small picture, two pixels a character, in a terminal with colours; else says where it is."""
        if not self.terminal or self.console.color_system is None:
            self.line(f"    {path}")
            return
        from PIL import Image
        from rich.style import Style
        from rich.text import Text

        with Image.open(path) as image:
            small = image.convert("RGB").resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
        for row in range(0, PICTURE_SIDE, 2):
            shown = Text("    ")
            for column in range(PICTURE_SIDE):
                upper, lower = (small.getpixel((column, row + half)) for half in (0, 1))
                colours = ("#{:02x}{:02x}{:02x}".format(*one) for one in (upper, lower))  # type: ignore[misc]
                shown.append("▀", Style(color=next(colours), bgcolor=next(colours)))
            self.console.print(shown)

    def bars(self, rows: Sequence[tuple[str, float]]) -> None:
        """Writes names with probabilities, each with a bar."""
        from rich.cells import cell_len

        width = max((cell_len(name) for name, _ in rows), default=0)
        for number, (name, value) in enumerate(rows):
            bar = ("━" if self.terminal else "#") * round(BAR_WIDTH * value)
            padding = " " * (width - cell_len(name))
            shown = f"{value:.1%}" if value >= 5e-4 else "< 0.1%"
            self.line(f"    {name}{padding}  {shown:>6}  {bar}", "" if number == 0 else "dim")

    def marked(self, text: str, start: int, end: int) -> None:
        """Writes a text in which the characters from `start` to `end` stand out."""
        from rich.text import Text

        if self.terminal:
            shown = Text(text)
            shown.stylize("bold reverse", start, end)
            self.console.print(shown)
        else:
            self.line(f"{text[:start]}>>{text[start:end]}<<{text[end:]}")

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        right: bool = False,
    ) -> None:
        """Writes a table; numbers stand to the right."""
        from rich.box import ASCII2, ROUNDED
        from rich.table import Table

        table: Any = Table(
            title=title or None, title_justify="left", box=ROUNDED if self.terminal else ASCII2
        )
        for place, column in enumerate(columns):
            justify = "right" if right and place else "left"
            table.add_column(column, overflow="fold", justify=justify)
        for row in rows:
            table.add_row(*row)
        self.console.print(table, markup=False)
