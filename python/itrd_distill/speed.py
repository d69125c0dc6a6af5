"""Training speed of several methods, measured in turn, so that what else a machine does is spread over all of them."""

import itertools
import time
from typing import cast

import torch
from lightning.fabric import Fabric
from torch import nn

from itrd_distill.data import ImageData, loader
from itrd_distill.models import create_model
from itrd_distill.stopping import looking
from itrd_distill.training.module import Distiller
from itrd_distill.training.run import assemble
from itrd_distill.training.settings import Recipe


def measure_speeds(
    recipes: dict[str, Recipe], data: ImageData, teacher: nn.Module | None, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Training images a second of every method, once in each round: loading, teacher, student, loss, SGD step.

    The teacher is run even where the recipe takes its outputs from a cache; one process, without Lightning's loop.
    """
    first = next(iter(recipes.values()))
    fabric = Fabric(**{**first.trainer.machine(), "devices": 1})
    prepared = {name: _prepare(recipe, data, teacher, fabric) for name, recipe in recipes.items()}
    for module, optimizer in prepared.values():
        _train_for(0, module, optimizer, fabric, first, data)  # warms up
    speeds: dict[str, list[float]] = {name: [] for name in recipes}
    for _, (name, (module, optimizer)) in itertools.product(range(rounds), prepared.items()):
        speeds[name].append(_train_for(seconds, module, optimizer, fabric, first, data))
    return speeds


def _prepare(
    recipe: Recipe, data: ImageData, teacher: nn.Module | None, fabric: Fabric
) -> tuple[Distiller, torch.optim.Optimizer]:
    torch.manual_seed(recipe.seed)
    module = assemble(recipe, create_model(recipe.student, data.num_classes), teacher, data)
    # What is converted stays the same module, which Lightning's annotation does not say.
    converted = cast(Distiller, fabric.strategy.precision.convert_module(module)).to(fabric.device).train()
    return converted, recipe.optimizer.create(converted)


def _train_for(
    seconds: float, module: Distiller, optimizer: torch.optim.Optimizer, fabric: Fabric, recipe: Recipe, data: ImageData
) -> float:
    """Images a second over at least two steps and so many seconds."""
    batches = itertools.chain.from_iterable(
        loader(data.train, recipe.data.batch_size, train=True, workers=recipe.data.workers)
        for _ in itertools.count()
    )  # fmt: skip
    images, start = 0, time.perf_counter()
    for step, batch in enumerate(looking(batches)):
        batch = fabric.to_device(fabric.strategy.precision.convert_input(batch))
        with fabric.autocast():
            loss = module.training_step(batch, step)["loss"]
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        images += len(batch.labels)
        if step > 0 and time.perf_counter() - start > seconds:
            break
    loss.item()  # waits for the device
    return images / (time.perf_counter() - start)
