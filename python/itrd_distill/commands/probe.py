"""`itrd-distill probe`: a linear classifier on a trained model's frozen features, from the command line."""

from pathlib import Path

from itrd_distill.linear_probe import FEATURES, train_probe
from itrd_distill.lines import console
from itrd_distill.training.ownership import holds_run, owned
from itrd_distill.training.result import RunResult, digests_in
from itrd_distill.training.settings import Recipe


def probe_command(recipe: Recipe, weights: Path, out: Path | None) -> RunResult:
    """Probe and say what came out."""
    directory = out or Path("runs", "probe", recipe.data.name, weights.parent.name or weights.stem)
    with owned(directory):
        if holds_run(directory):
            if not _is_probe(directory):
                raise ValueError(f"{directory} holds a run that is no probe: choose another --out")
            console().print(f"The probe that was in {directory} is replaced", soft_wrap=True)
        result = train_probe(recipe, weights, directory)
    accuracy = f"{100 * result.test_accuracy:.2f} % test accuracy"
    console().print(f"{recipe.student} → {recipe.data.name}: {accuracy} of a linear classifier")
    return result


def _is_probe(directory: Path) -> bool:
    """Whether the run in a folder is a probe: it notes of which model it is. Older ones note nothing but have features,
    which alone say little: they also stay where a probe was replaced by another run."""
    digests = digests_in(directory)
    return "model" in digests if digests else (directory / FEATURES).is_file()
