"""The data of the study of rotated moons: see `rotated_moons.py`."""

from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from sklearn.datasets import make_moons
from sklearn.preprocessing import StandardScaler
from torch import Tensor

TASKS, POINTS, NOISE = 18, 100, 0.3  # half of a task's points are its training set, half its test set


@dataclass(frozen=True)
class Moons:
    """The points of all tasks: inputs (900, 3) are two coordinates and the task's number, targets (900,) are 0 and 1."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    angles: np.ndarray  # (18,), in degrees
    upright: np.ndarray  # the test points before standardisation and rotation, (900, 2)


def moons(seed: int) -> Moons:
    """Draw the tasks: make_moons with noise 0.3, standardised, turned by an angle ~ N(0, 90°)."""
    random = np.random.RandomState(seed)
    parts: dict[str, list] = {"train": [], "test": []}
    angles, upright = [], []
    for task in range(TASKS):
        points, classes = make_moons(POINTS, noise=NOISE, random_state=random)
        angles.append(90 * random.randn())
        turned = StandardScaler().fit_transform(points) @ rotation(angles[-1])
        rows = torch.tensor(np.c_[turned, np.full(POINTS, task), classes], dtype=torch.float32)
        parts["train"].append(rows[: POINTS // 2])
        parts["test"].append(rows[POINTS // 2 :])
        upright.append(points[POINTS // 2 :])
    train, test = (torch.cat(parts[name]) for name in ("train", "test"))
    return Moons((train[:, :3], train[:, 3]), (test[:, :3], test[:, 3]), np.array(angles), np.concatenate(upright))


def rotation(degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def best_possible(data: Moons) -> float:
    """Accuracy on the test points of whoever knows the two densities that make_moons draws from."""
    arc = np.linspace(0, pi, POINTS // 2)  # each moon is so many equidistant points on a half circle, plus noise
    centers = np.c_[np.cos(arc), np.sin(arc)], np.c_[1 - np.cos(arc), 0.5 - np.sin(arc)]
    squares = [((data.upright[:, None] - c) ** 2).sum(-1) for c in centers]
    first, second = (np.exp(-0.5 * s / NOISE**2).mean(1) for s in squares)
    return float(((second > first) == data.test[1].numpy()).mean())
