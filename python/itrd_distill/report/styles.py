"""How each method is named and drawn: the same colour and dash everywhere, told apart without colour too."""

import html
from typing import NamedTuple


class Style(NamedTuple):
    """variable: the page's name for the colour; light, dark: its values on a light and on a dark page;
    dash: lengths of ink and gap in line widths, empty for solid."""

    label: str
    formula: str  # HTML
    variable: str
    light: str
    dark: str
    dash: tuple[float, ...]
    marker: str


# After Okabe and Ito's palette, darkened for white paper and lightened for a dark screen.
_COLOURS = (
    ("#6b6b6b", "#b0b0b0"),
    ("#c25a00", "#ff9a4d"),
    ("#0072b2", "#5cb8f0"),
    ("#00805c", "#2ed3a0"),
    ("#a8437f", "#e38fc0"),
    ("#8a6d00", "#e0c341"),
    ("#7a4fb5", "#bd9bf0"),
    ("#b3261e", "#ff8a80"),
)
_DASHES = ((1.0, 1.4), (5.0, 1.6), (6.0, 1.4, 1.0, 1.4), ())
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_CE = "<i>L</i><sub>CE</sub>"
_NAMES = {
    "none": ("Cross-entropy alone", _CE),
    "kd": ("KD", f"(1 − <i>w</i>) {_CE} + <i>w</i> <i>L</i><sub>KD</sub>"),
    "itrd_corr": ("ITRD, correlation", f"{_CE} + β<sub>corr</sub> <i>L</i><sub>corr</sub>"),
    "itrd": (
        "ITRD, correlation + MI",
        f"{_CE} + β<sub>corr</sub> <i>L</i><sub>corr</sub> + β<sub>mi</sub> <i>L</i><sub>mi</sub>",
    ),
}


def styles(methods: list[str]) -> dict[str, Style]:
    """A style for each method: the four of the demo always look the same, others take what is left in turn."""
    order = [*_NAMES, *(method for method in methods if method not in _NAMES)]
    found = {}
    for method in methods:
        place = order.index(method)
        label, formula = _NAMES.get(method, (method, f"{_CE} + {html.escape(method)}"))
        light, dark = _COLOURS[place % len(_COLOURS)]
        dash, marker = _DASHES[place % len(_DASHES)], _MARKERS[place % len(_MARKERS)]
        found[method] = Style(label, formula, f"--method-{place}", light, dark, dash, marker)
    return found
