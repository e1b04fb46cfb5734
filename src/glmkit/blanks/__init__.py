"""ids -> blanks: which spans become blanks (spans, objectives), and how an example looks (layout, render)."""
