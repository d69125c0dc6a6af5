"""`itrd-distill recipes`: what may follow --recipe."""

from itrd_distill.recipes import names


def recipes_command(text: str) -> None:
    """Print the names of the recipes that contain `text`."""
    print("\n".join(name for name in names() if text in name))
