"""What a backend says of itself, in one record; backends/__init__.py has the table of them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backend:
    """One implementation of the operators of schema.py, in the namespace itrd_<name>.

    Attributes:
        name: what users call it.
        device_types: `torch.device.type` of the tensors that it is meant for; "auto" takes it for these alone.
        unavailable: None if it can run in this process, else the reason and the remedy; asked once, at import.
        register: defines the operators, where loading a library has not done so.
        runs_on: device types of the tensors that it takes in this process when asked for by name, where test equipment
            makes them others than `device_types` (emulated.py).
        forms_statistics: whether `gram`, without other rows, takes the row statistics of a loss that has such from the
            rows where none are given, and then gives whole gradients.
    """

    name: str
    device_types: tuple[str, ...]
    unavailable: Callable[[], str | None]
    register: Callable[[], None] = lambda: None
    runs_on: tuple[str, ...] | None = None
    forms_statistics: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        """Device types of the tensors that it can run on here."""
        return self.device_types if self.runs_on is None else self.runs_on
