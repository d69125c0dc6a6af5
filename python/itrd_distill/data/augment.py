"""Crop and flip of a batch, each image's drawn by a hash of seed, epoch and image: no state, nothing to resume."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def draw(seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
    """A uint64 for each index (n,), uniform and independent for all practical purposes (splitmix64)."""
    with np.errstate(over="ignore"):
        state = np.full(index.shape, seed, dtype=np.uint64)
        for word in (np.uint64(epoch), index.astype(np.uint64)):
            state = _mix(state + np.uint64(0x9E3779B97F4A7C15) * (word + np.uint64(1)))
    return state


def crop_and_flip(images: Tensor, seed: int, epoch: int, index: np.ndarray, padding: int = 4) -> Tensor:
    """Images (n, c, h, w) shifted by up to `padding` pixels, with zeros coming in, and mirrored half of the time."""
    drawn = draw(seed, epoch, index)
    places = np.uint64(2 * padding + 1)
    top, left, mirrored = drawn % places, (drawn >> np.uint64(20)) % places, (drawn >> np.uint64(40)) % np.uint64(2)
    n, _, h, w = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = torch.from_numpy(top.astype(np.int64))[:, None] + torch.arange(h)
    columns = torch.from_numpy(left.astype(np.int64))[:, None] + torch.arange(w)
    columns = torch.where(torch.from_numpy(mirrored == 1)[:, None], columns.flip(1), columns)
    # (n, h, w, c) out of the advanced indices around the channel axis
    out = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return out.permute(0, 3, 1, 2).contiguous()


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
