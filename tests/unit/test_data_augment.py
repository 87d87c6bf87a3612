"""Augmentation: exactly the views that it names, all equally often, the same again after an interruption."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, nn

from posterity import (
    HMC,
    MAP,
    NUTS,
    Categorical,
    Engine,
    Interrupted,
    MeanField,
    Normal,
    Problem,
    Refine,
    TensorData,
    fit,
)
from posterity.data.augment import flipped, flipped_and_shifted, shifted
from posterity.errors import InvalidInput
from tests.conformance.test_law06_resume import Stopper


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def views(image: np.ndarray, most: int) -> np.ndarray:
    """Return all (2·most + 1)² shifts of an image (C, H, W), by NumPy: (shifts, C, H, W)."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (most, most), (most, most)))
    steps = range(2 * most + 1)
    return np.stack([padded[:, y : y + height, x : x + width] for y in steps for x in steps])


def test_shifts_are_those_of_numpy_and_equally_probable():
    image = torch.arange(1.0, 41).view(2, 4, 5)  # oblong, two channels that must move together
    n = 50_000
    found = shifted(image.expand(n, 2, 4, 5), seeded(), most=2)
    expected = torch.from_numpy(views(image.numpy(), 2))
    distinct, counts = found.flatten(1).unique(dim=0, return_counts=True)
    assert torch.equal(distinct, expected.flatten(1).unique(dim=0))
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    own = shifted(torch.stack([image, -image]).repeat(50, 1, 1, 1), seeded(), most=2)  # none gets a neighbour's pixels
    assert (own[::2] >= 0).all()
    assert (own[1::2] <= 0).all()


def test_images_are_mirrored_in_half_of_the_cases():
    image = torch.arange(12.0).view(1, 3, 4)
    n = 10_000
    found = flipped(image.expand(n, 1, 3, 4), seeded())
    mirrored = (found == image.flip(-1)).flatten(1).all(1)
    assert torch.equal(mirrored, ~(found == image).flatten(1).all(1))
    assert stats.binomtest(int(mirrored.sum()), n).pvalue > 1e-3


def test_all_162_views_of_cifar_come_out_and_the_images_stay():
    image = torch.rand(1, 6, 6, generator=seeded())
    images = image.expand(5000, 1, 6, 6).clone()
    found = flipped_and_shifted(images, seeded(1))
    both = np.concatenate([views(image.numpy(), 4), views(image.flip(-1).numpy(), 4)])
    assert torch.equal(found.flatten(1).unique(dim=0), torch.from_numpy(both).flatten(1).unique(dim=0))
    assert torch.equal(images, image.expand_as(images))
    assert found.dtype == images.dtype
    assert torch.equal(shifted(images, seeded(), most=0), images)


def test_what_is_no_image_is_refused():
    for augment in (flipped, shifted, flipped_and_shifted):
        with pytest.raises(InvalidInput, match=r"got inputs of shape \(3, 5\)"):
            augment(torch.zeros(3, 5), seeded())
    with pytest.raises(InvalidInput, match="most=-1"):
        shifted(torch.zeros(1, 1, 2, 2), seeded(), most=-1)


def made(**changes) -> TensorData:
    inputs = torch.rand(60, 1, 8, 8, generator=seeded())
    return TensorData(inputs, (inputs.mean((1, 2, 3)) > 0.5).long(), batch_size=16, **changes)


def test_views_depend_on_the_generator_alone_and_count_as_no_further_data():
    data = made(augment=flipped_and_shifted)
    assert (data.num_data, data.steps_per_epoch) == (60, 4)
    once, again, other = (list(data.batches(0, seeded(s))) for s in (0, 0, 1))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once[0][0], other[0][0])
    assert not torch.isin(once[0][0].flatten(1).sum(1), data.inputs.flatten(1).sum(1)).all()
    split = replace(data, augment=lambda images, generator: images + 100).split(0.2)
    assert next(iter(split.batches(0, seeded())))[0].min() >= 100
    assert split.held_out[0].max() <= 1  # validation images are shown as they are


def inferred(data, engine: Engine):
    torch.manual_seed(0)
    problem = Problem(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), Normal(0, 0.3), Categorical(), data.num_data)
    return MeanField(epochs=3).infer(problem, data, engine)


@pytest.mark.parametrize("method", [NUTS(), HMC(), Refine(NUTS(), MAP(1))])
def test_a_sampler_whose_target_must_stand_still_refuses_views(method):
    data = TensorData(torch.randn(6, 1, 2, 2), torch.arange(6) % 2, augment=flipped)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InvalidInput, match="shows other inputs at every pass"):
        fit(network, data, method=method, engine=Engine(progress=False))


def test_a_resumed_run_sees_the_same_views(tmp_path):
    data, engine = made(augment=flipped_and_shifted), Engine(device="cpu", progress=False, directory=tmp_path / "cut")
    whole = inferred(data, replace(engine, directory=tmp_path / "whole"))
    with pytest.raises(Interrupted):
        inferred(Stopper(data, 6), engine)  # in the middle of the second epoch
    resumed = inferred(data, replace(engine, resume=True))
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name])
    assert not torch.equal(inferred(made(), replace(engine, directory=None)).mean, whole.mean)
