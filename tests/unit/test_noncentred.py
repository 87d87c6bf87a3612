"""What an estimator is handed under a non-centred prior, and what becomes of its gradients: the chain rule, by hand."""

import pytest
import torch
from torch import Generator, Tensor, nn

from posterity import Gaussian, Hierarchical, Normal, Problem, Product
from posterity.core.estimators import Estimator, Loss, Pair
from posterity.model.noncentred import NonCentred

F64 = {"dtype": torch.float64}


class Recorder(Estimator):
    """Remembers the q that it is handed, and returns gradients of its own."""

    def write(self, loss: Loss, q: Pair, out: Pair, generator: Generator | None) -> Tensor:
        self.q = q[0].clone(), q[1].clone()
        self.gradients = tuple(torch.linspace(-1.0, 2.0, len(v), **F64) for v in q)
        for target, gradient in zip(out, self.gradients, strict=True):
            target.copy_(gradient)
        return torch.zeros(())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("where", [None, "weight"])
def test_weights_are_those_of_one_drawn_scale_and_gradients_are_pulled_back(where: str | None, seed: int) -> None:
    """w ~ N(s·μ, (s·σ)²) with ONE s = exp(u) in mean and std, drawn from u ~ N(m, t²); log s is read off the ratio."""
    torch.manual_seed(seed)
    network = nn.Linear(3, 1).double()
    prior = Product({"weight": Hierarchical(centered=False), "*": Normal(0, 1)})
    coordinates = Problem(network, prior, Gaussian(std=1.0), 10, where=where).coordinates
    layout, start, size = coordinates.layout, coordinates.start, coordinates.layout.size
    mean, std = torch.randn(size, **F64), 0.2 + torch.rand(size - start, **F64)
    recorder = Recorder(coordinates.params, start)
    out = torch.empty_like(mean), torch.empty_like(std)
    NonCentred(recorder, coordinates).write(lambda: torch.zeros(()), (mean, std), out, Generator().manual_seed(seed))

    whole = torch.cat([torch.zeros(start, **F64), std])
    weight, latent = slice(*_place(layout, "weight")), size - 1
    scales = torch.cat([recorder.q[0][weight] / mean[weight], recorder.q[1][_from(weight, start)] / whole[weight]])
    scale = scales[0]
    torch.testing.assert_close(scales, scale.expand(6))  # the same s in mean and std
    noise = (scale.log() - mean[latent]) / std[-1]
    assert abs(float(noise)) > 1e-3  # drawn, not taken at the mean

    a, b = recorder.gradients[0], torch.cat([torch.zeros(start, **F64), recorder.gradients[1]])
    expected_mean, expected_std = a.clone(), b.clone()
    expected_mean[weight], expected_std[weight] = scale * a[weight], scale * b[weight]
    through = scale * (a[weight] @ mean[weight] + b[weight] @ whole[weight])
    expected_mean[latent] = a[latent] + through
    expected_std[latent] = noise * expected_mean[latent]  # u = m + t·noise: what an estimator says of u itself included
    torch.testing.assert_close(out[0], expected_mean)
    torch.testing.assert_close(out[1], expected_std[start:])


def test_the_scale_is_drawn_from_its_own_q() -> None:
    """Over draws log s has the mean and std of u."""
    coordinates = Problem(
        nn.Linear(2, 1, bias=False).double(), Hierarchical(centered=False), Gaussian(std=1.0), 10
    ).coordinates
    mean, std = torch.tensor([0.5, -1.0, 0.3], **F64), torch.tensor([0.1, 0.2, 0.8], **F64)
    recorder, generator, n = Recorder(coordinates.params), Generator().manual_seed(0), 400
    wrapped, logs = NonCentred(recorder, coordinates), []
    for _ in range(n):
        wrapped(lambda: torch.zeros(()), mean, std, generator)
        logs.append((recorder.q[1][0] / std[0]).log())
    found = torch.stack(logs)
    assert abs(float(found.mean()) - 0.3) < 4 * 0.8 / n**0.5
    assert abs(float(found.std()) - 0.8) < 4 * 0.8 / (2 * n) ** 0.5


def _place(layout: object, name: str) -> tuple[int, int]:
    index = layout.names.index(name)
    return layout.offsets[index], layout.offsets[index] + 3


def _from(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)
