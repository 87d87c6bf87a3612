"""The study of CIFAR: a network and its twin get the same, the test set chooses nothing, and records say what was measured."""

import json
from dataclasses import replace

import pytest
import torch

from posterity.bench import cifar
from posterity.bench.study import Job
from posterity.data import Dataset, load
from posterity.methods import MLE, MeanField
from posterity.metrics.scores import accuracy
from posterity.model.likelihoods import Categorical
from posterity.model.problem import Problem
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.train.batches import TensorData


@pytest.fixture
def small(monkeypatch) -> Dataset:
    """Digits in three colours for CIFAR, 200 of them held out, and networks trained for one epoch."""
    digits = load("digits", image_size=32)
    coloured = (images.expand(-1, 3, -1, -1) for images in (digits.train_inputs, digits.test_inputs))
    train, test = coloured
    data = replace(digits, train_inputs=train, test_inputs=test).standardised()
    monkeypatch.setattr(cifar, "_dataset", lambda name: data)
    monkeypatch.setattr(cifar, "VALIDATION", 200)
    for name, model in cifar.MODELS.items():
        monkeypatch.setitem(cifar.MODELS, name, replace(model, epochs=1))
    return data


@pytest.mark.parametrize("model", cifar.MODELS)
def test_a_network_and_its_twin_differ_in_the_method_alone(model):
    rows = [cifar.ROWS[f"{model}_{name}"] for name in cifar.KINDS]
    twin, bayesian, cold = (row.method for row in rows)
    assert (type(twin), type(bayesian)) == (MLE, MeanField)
    assert twin.epochs == bayesian.epochs == cifar.MODELS[model].epochs
    assert twin.optimizer.schedule == bayesian.optimizer.schedule
    assert bayesian.temperature == 1.0
    assert cold == replace(bayesian, temperature=cifar.MODELS[model].temperature)
    assert len({row.model for row in rows}) == 1


def test_the_last_epoch_counts_and_the_views_are_augmented(small, monkeypatch, tmp_path):
    seen = []

    def fit(network, data: TensorData, *, prior, method, engine):
        seen.append((network, data, method))
        problem = Problem(network, prior, Categorical(), data.num_data)
        flat = torch.cat([p.detach().flatten() for p in network.parameters()])
        posterior = DiagonalGaussian(problem, flat, torch.full_like(flat, 0.05))
        posterior.provenance.update(seed=engine.seed)
        return posterior

    monkeypatch.setattr(cifar.posterity, "fit", fit)
    record = cifar.run(Job("cifar-10", "lenet_mean_field", 3), tmp_path)
    network, data, _ = seen[0]
    assert data.held_out is None  # nothing to choose an epoch by
    assert data.num_data == len(small.train_inputs) - 200
    assert data.augment is cifar.views
    assert record["validation"]["accuracy"] == record["scores"]["validation_accuracy"]
    assert record["fit"]["seed"] == 3
    scores = record["scores"]
    assert scores["epistemic"] > 0
    assert scores["epistemic"] + scores["aleatoric"] == pytest.approx(_total(network, small, 3), rel=1e-5)
    # A fit that tells nothing of its epochs has no bound.
    assert {c.score for c in cifar.CIFAR.columns["cifar-10"]} - {"nelbo"} <= scores.keys()
    json.dumps(record, allow_nan=False)


def test_views_are_flipped_images_channel_by_channel_in_memory():
    images = torch.arange(64 * 2 * 3.0).view(64, 2, 1, 3)
    seen = cifar.views(images, torch.Generator().manual_seed(0))
    flips = torch.stack([(v == image.flip(-1)).all() for v, image in zip(seen, images, strict=True)])
    assert ((seen == images).flatten(1).all(1) | flips).all()
    assert 0 < flips.sum() < 64
    assert seen.is_contiguous(memory_format=torch.channels_last)


def _total(network, data: Dataset, seed: int) -> float:
    """Return Σ_c p̄_c(1 − p̄_c), averaged over the test images: the law of total variance, from drawn weights by hand."""
    generator = torch.Generator().manual_seed(cifar.derived_seed(seed, "prediction"))
    problem = Problem(network, cifar.PRIOR, Categorical(), 1)
    flat = torch.cat([p.detach().flatten() for p in network.parameters()])
    posterior = DiagonalGaussian(problem, flat, torch.full_like(flat, 0.05))
    mean = posterior.draw(data.test_inputs, 16, generator=generator).softmax(-1).mean(0)
    return (mean * (1 - mean)).sum(1).mean().item()


def test_a_twin_is_one_function(small, tmp_path):
    record = cifar.run(Job("cifar-10", "lenet_mle", 0), tmp_path)
    assert record["scores"]["epistemic"] == pytest.approx(0, abs=1e-12)
    assert 0 < record["scores"]["accuracy"] <= 1
    assert record["fit"]["method"]["kind"] == "mle"
    assert record["seconds_per_epoch"] == pytest.approx(record["seconds"], abs=0.1)


def test_scores_are_those_of_the_predictions(small):
    problem = Problem(cifar.LeNet(10, 3), cifar.PRIOR, Categorical(), 1)
    flat = torch.cat([p.detach().flatten() for p in problem.network.parameters()])
    posterior = DiagonalGaussian(problem, flat, torch.full_like(flat, 1e-9))
    found = cifar._scores(posterior, small.test_inputs, small.test_targets, 0)
    with torch.no_grad():
        probs = problem.network(small.test_inputs).softmax(-1)
    assert found["accuracy"] == accuracy(probs, small.test_targets)
    assert found["epistemic"] == pytest.approx(0, abs=1e-9)
