"""How each method is named and drawn: the same colour and dash everywhere, told apart without colour too."""

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
# Method → (name, its terms beside the cross-entropy), in the order that fixes their looks.
_TERMS: dict[str, tuple[str, list[str]]] = {
    "none": ("Cross-entropy alone", []),
    "kd": ("KD", ["KD"]),
    "itrd_corr": ("ITRD, correlation", ["corr"]),
    "itrd": ("ITRD, correlation + MI", ["corr", "mi"]),
    "crd": ("CRD", ["CRD"]),
    "wcord": ("WCoRD", ["global", "local"]),
    "review": ("ReviewKD", ["Review"]),
    "fitnet": ("FitNet", ["FitNet"]),
    "at": ("AT", ["AT"]),
    "sp": ("SP", ["SP"]),
    "cc": ("CC", ["CC"]),
    "rkd": ("RKD", ["RKD"]),
    "pkt": ("PKT", ["PKT"]),
    "ft": ("FT", ["FT"]),
    "nst": ("NST", ["NST"]),
}


def styles(methods: list[str]) -> dict[str, Style]:
    """A style for each method: those of the paper always look the same, others take what is left in turn."""
    order = [*_TERMS, *(method for method in methods if method not in _TERMS)]
    found = {}
    for method in methods:
        place = order.index(method)
        # Beyond the palette colours come again with other dashes and markers.
        turn = place + place // len(_COLOURS)
        light, dark = _COLOURS[place % len(_COLOURS)]
        dash, marker = _DASHES[turn % len(_DASHES)], _MARKERS[turn % len(_MARKERS)]
        label, terms = _TERMS.get(method, (method, None))
        formula = "" if terms is None else _formula(method, terms)
        found[method] = Style(label, formula, f"--method-{place}", light, dark, dash, marker)
    return found


def _formula(method: str, terms: list[str]) -> str:
    if method == "kd":
        return f"(1 − <i>w</i>) {_CE} + <i>w</i> <i>L</i><sub>KD</sub>"
    return " + ".join([_CE, *(f"β<sub>{term}</sub> <i>L</i><sub>{term}</sub>" for term in terms)])
