"""Law 8: deepcopy, pickle and files keep a posterior; a plain checkpoint loads as the mean; 2P numbers for mean field."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import posterity
from posterity import (
    CorruptFile,
    Engine,
    Gaussian,
    InvalidInput,
    MeanField,
    Mismatch,
    Normal,
    PosterityError,
    Problem,
    TensorData,
)
from posterity.methods.mean_field import MeanFieldInference
from posterity.train.random import NamedStreams
from posterity.types import Budget
from tests.conformance.table import SHORT, every_short_method, small_classification, small_network


def fitted(name: str):
    x, y = small_classification()
    return posterity.fit(small_network(), TensorData(x, y, 20), method=SHORT[name], engine=Engine(progress=False))


def draws(posterior) -> torch.Tensor:
    return posterior.draw(small_classification()[0], 4, generator=torch.Generator().manual_seed(5))


@every_short_method
def test_copies_draw_the_same_functions(name: str, tmp_path: Path) -> None:
    posterior = fitted(name)
    expected = draws(posterior)
    torch.testing.assert_close(draws(copy.deepcopy(posterior)), expected, rtol=0, atol=0)
    torch.testing.assert_close(draws(pickle.loads(pickle.dumps(posterior))), expected, rtol=0, atol=0)
    posterior.save(tmp_path / "posterior.safetensors")
    torch.manual_seed(99)
    loaded = posterity.load(tmp_path / "posterior.safetensors", small_network())
    torch.testing.assert_close(draws(loaded), expected, rtol=0, atol=0)
    assert loaded.provenance == posterior.provenance
    assert loaded.problem.prior == posterior.problem.prior
    assert loaded.problem.num_data == posterior.problem.num_data


def test_mean_field_has_exactly_two_numbers_per_weight() -> None:
    size = sum(p.numel() for p in small_network().parameters())
    everything = Problem(small_network(), Normal(0, 1), posterity.Categorical(), 40, where="*")
    assert len(everything.theta()) == size
    assert len(MeanFieldInference(everything, MeanField(), Budget(1, 1)).init(NamedStreams(0, "t"))["rho"]) == size
    norm = small_network()[1]  # deterministic unless selected
    posterior = fitted("mean_field-weight")
    assert sum(t.numel() for t in posterior.tensors().values()) == 2 * size - sum(p.numel() for p in norm.parameters())


def test_the_mean_is_a_plain_network_and_a_plain_checkpoint_is_a_mean() -> None:
    posterior = fitted("mean_field-weight")
    plain = posterior.network()
    fresh = small_network()
    fresh.load_state_dict(plain.state_dict())
    problem = posterity.Problem(fresh, Normal(0, 0.1), posterity.Categorical(), 40)
    torch.testing.assert_close(problem.theta(), posterior.mean)


def test_running_statistics_are_saved(tmp_path: Path) -> None:
    posterior = fitted("map")
    running = posterior.problem.network[1].running_mean
    assert running.abs().max() > 1e-3
    posterior.save(tmp_path / "p.safetensors")
    loaded = posterity.load(tmp_path / "p.safetensors", small_network())
    torch.testing.assert_close(loaded.problem.network[1].running_mean, running)


def test_latents_are_saved(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 30)[:, None]
    method = posterity.MeanField(epochs=3)
    posterior = posterity.fit(
        nn.Linear(1, 1), (x, x.squeeze()), likelihood=Gaussian(), method=method, engine=Engine(progress=False)
    )
    posterior.save(tmp_path / "p.safetensors")
    loaded = posterity.load(tmp_path / "p.safetensors", nn.Linear(1, 1))
    predicted = [p.predict(x, 8, generator=torch.Generator().manual_seed(0)).aleatoric for p in (posterior, loaded)]
    torch.testing.assert_close(*predicted)
    assert "likelihood.std" in loaded.problem.layout.names


class Other(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def wider() -> nn.Module:
    network = small_network()
    network[4] = nn.Linear(48, 3)
    return network


def softer() -> nn.Module:
    network = small_network()
    network[2] = nn.Softplus()
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Other, "posterior of Sequential; it was given a Other"),
        (wider, r"shape      4.weight: given \(2, 48\), expected \(3, 48\)"),
        (softer, r"a network with \(2\): ReLU\(\); the one given has \(2\): Softplus"),
        (lambda: small_network().double(), "float32 weights; the network's are float64"),
    ],
)
def test_another_network_is_refused(network, message: str, tmp_path: Path) -> None:
    fitted("mean_field-weight").save(tmp_path / "p.safetensors")
    with pytest.raises(Mismatch, match=message):
        posterity.load(tmp_path / "p.safetensors", network())


def test_files_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    fitted("map").save(path)
    content = path.read_bytes()
    for broken in (b"", content[:100], content[:-10], b"not a posterior"):
        path.write_bytes(broken)
        with pytest.raises(CorruptFile, match=r"p\.safetensors"):
            posterity.load(path, small_network())
    with pytest.raises(PosterityError, match=r"There is no posterior file .*absent"):
        posterity.load(tmp_path / "absent", small_network())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.safetensors"
    posterior = fitted("map")
    posterior.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("posterity.tensors.save_file", full)
    with pytest.raises(InvalidInput, match=r"Cannot write .*p\.safetensors.*No space"):
        posterior.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def full(tensors: object, path: Path, metadata: object) -> None:
    Path(path).write_bytes(b"half")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("header", ["[]", "{", "[" * 5000, '{"format": "posterity-1"}', '"text"', "null", ""])
def test_a_header_that_is_no_specification_is_refused(header: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"posterity": header})
    with pytest.raises(CorruptFile, match=r"x\.safetensors"):
        posterity.load(tmp_path / "x.safetensors", nn.Linear(1, 1))


def test_an_unknown_family_is_refused_by_its_name(tmp_path: Path) -> None:
    entries = dict.fromkeys(
        ("network", "structure", "parameters", "random", "dtype", "prior", "likelihood", "num_data"), 1
    )
    header = json.dumps({"format": "posterity-1", "family": "dagonal_gaussian", **entries})
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"posterity": header})
    with pytest.raises(InvalidInput, match=r"'dagonal_gaussian'.*Did you mean 'diagonal_gaussian'"):
        posterity.load(tmp_path / "x.safetensors", nn.Linear(1, 1))
