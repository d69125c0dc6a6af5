"""What a run is made from, its settings and digests of images and weights, to be compared with what is asked for."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from torch import nn

from itrd_distill.data import ImageData
from itrd_distill.lines import say
from itrd_distill.options import hint_of, misfit
from itrd_distill.training.files import write_atomically
from itrd_distill.training.provenance import data_digest, weights_digest
from itrd_distill.training.settings import Recipe

# What may differ without making it another run: where things are, and the machine.
_MACHINE = (
    "name", "teacher.cache", "data.root", "data.download", "data.workers", "data.test_batch_size",
    "trainer.accelerator", "trainer.devices", "trainer.checkpoint_every",
)  # fmt: skip
_TOLD = {"data": "images", "teacher": "teacher's weights", "model": "model's weights"}


class Damaged(ValueError):
    """A file of a run is not what was written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is damaged or of another version ({why}): remove it to go on from the last checkpoint, "
            f"or train that run again (by `train --overwrite`, or after removing {path.parent})"
        )


@dataclass(frozen=True)
class Record:
    """What a run is made from.

    settings: those of its recipe.
    digests: of its images (data), its teacher's weights (teacher), the model that is probed (model).
    """

    settings: dict[str, Any]
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe, digests: dict[str, str]) -> "Record":
        """That of a recipe; of the digests, the teacher's is left out where its loss looks at no teacher."""
        known = {what: digest for what, digest in digests.items() if what != "teacher" or recipe.loss.name != "none"}
        # As they come back from a file: tuples as lists.
        return cls(yaml.safe_load(yaml.safe_dump(asdict(recipe))), known)

    @classmethod
    def beside(cls, directory: Path, digests: dict[str, str]) -> "Record":
        """The settings of recipe.yaml in a run's folder; Damaged if it is no recipe."""
        path = directory / "recipe.yaml"
        try:
            settings = yaml.safe_load(path.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Damaged(path, f"no YAML: {' '.join(str(error).split())}") from error
        if wrong := _wrong(settings, asdict(Recipe())):
            raise Damaged(path, wrong)
        return cls(settings, digests)

    @staticmethod
    def is_one(content: object) -> bool:
        """Whether this is a record as a mapping, as checkpoints hold it."""
        return (
            isinstance(content, dict)
            and content.keys() == {"settings", "digests"}
            and all(isinstance(part, dict) for part in content.values())
        )

    @property
    def flat(self) -> dict[str, Any]:
        """All settings by their dotted names; what an older version did not know has its default."""
        return {**_flat(asdict(Recipe())), **_flat(self.settings)}

    @property
    def epochs(self) -> int:
        return self.flat["trainer.epochs"]

    @property
    def kind(self) -> str:
        """A probe alone notes of which model it is; of older runs, which note nothing, this is not known."""
        return "a probe's classifier" if "model" in self.digests else "a whole model"

    @property
    def method(self) -> str:
        """As its result calls it."""
        return self.flat["method"] or self.flat["loss.name"]

    @property
    def text(self) -> str:
        """That of recipe.yaml."""
        return yaml.safe_dump(self.settings, sort_keys=False)

    def write(self, directory: Path) -> None:
        write_atomically(directory / "recipe.yaml", lambda path: path.write_text(self.text, "utf-8"))

    def changes(self, now: "Record", but_for: Collection[str] = ()) -> list[str]:
        """What differs in `now`, by name and with both values, but for some settings."""
        before, after = self.flat, now.flat
        ignored = {*_MACHINE, *but_for}
        if before["loss.name"] == after["loss.name"] == "none":
            # Without a distillation loss neither the teacher nor options of a loss are looked at.
            ignored.update(name for name in {**before, **after} if name.startswith(("teacher.", "loss.options.")))
        if "teacher" in self.digests and "teacher" in now.digests:
            # Where the same weights lie does not matter.
            ignored.add("teacher.checkpoint")
        settings = [
            f"{name} {before.get(name, 'not given')} → {after.get(name, 'not given')}"
            for name in {**before, **after}
            if name not in ignored and before.get(name) != after.get(name)
        ]
        if self.digests and now.digests and self.kind != now.kind:
            settings.append(f"what is trained: {self.kind} → {now.kind}")
        digests = [
            f"the {_TOLD[what]}, digest {self.digests[what]} → {digest}"
            for what, digest in now.digests.items()
            if self.digests.get(what, digest) != digest
        ]
        return settings + digests

    def check(self, now: "Record", where: Path, longer: bool = False) -> None:
        """Raise a ValueError if `now` is another run than the one in `where`; say what cannot be compared.

        `longer`: more epochs make no other run. Fewer do: it has followed the learning rate's course of all of them.
        """
        if changes := self.changes(now, ("trainer.epochs",) if longer and now.epochs >= self.epochs else ()):
            raise ValueError(
                f"{where} holds a run with other settings ({'; '.join(changes)}): go on with those it has, choose "
                "another --out, or train it again (by `train --overwrite`, or after removing it)"
            )
        if unknown := [_TOLD[what] for what in now.digests if what not in self.digests]:
            say(f"{where} is older and does not note of which {' and '.join(unknown)} it was made: taken to be these")


def digests_of(data: ImageData, **models: nn.Module | None) -> dict[str, str]:
    """Those of images and of models by what they are, teacher or model."""
    weights = {what: weights_digest(model) for what, model in models.items() if model is not None}
    return {"data": data_digest(data), **weights}


class KeepRecord(L.Callback):
    """The record travels with the checkpoints."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict) -> None:
        checkpoint["record"] = asdict(self.record)


def _wrong(settings: object, expected: dict[str, Any], prefix: str = "") -> str:
    """Which of the expected keys is missing, no group of settings or not what it may be; empty if all are well."""
    if not isinstance(settings, dict):
        return f"{prefix.rstrip('.') or 'it'} is no mapping of settings"
    for key, value in expected.items():
        if key not in settings:
            return f"{prefix}{key} is missing"
        if isinstance(value, dict):
            wrong = _wrong(settings[key], value, f"{prefix}{key}.")
        else:
            wrong = misfit(f"{prefix}{key}", settings[key], hint_of(Recipe, f"{prefix}{key}"))
        if wrong:
            return wrong
    return ""


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
