"""Law 3: one draw is one function: draw(cat(x, x′)) = cat(draw(x), draw(x′)) for equal generators."""

import pytest
import torch

import posterity
from posterity import Engine, MeanField, TensorData
from tests.conformance.table import SHORT, every_short_method, small_classification, small_network


def fitted(name: str):
    x, y = small_classification()
    return posterity.fit(small_network(), TensorData(x, y, 20), method=SHORT[name], engine=Engine(progress=False))


@every_short_method
def test_draws_are_functions(name: str) -> None:
    posterior, (x, _) = fitted(name), small_classification()
    whole = posterior.draw(x, 6, generator=torch.Generator().manual_seed(3))
    parts = [posterior.draw(part, 6, generator=torch.Generator().manual_seed(3)) for part in x.split(13)]
    torch.testing.assert_close(whole, torch.cat(parts, 1))
    if "map" not in name and "mle" not in name:
        assert (whole[0] - whole[1]).abs().max() > 1e-3


@every_short_method
def test_the_byte_budget_changes_nothing(name: str) -> None:
    posterior, (x, _) = fitted(name), small_classification()
    draws = [
        posterior.draw(x.repeat(4, 1, 1, 1), 4, generator=torch.Generator().manual_seed(3), max_bytes=budget)
        for budget in (2**30, 20_000)
    ]
    torch.testing.assert_close(*draws)


def test_train_and_eval_say_nothing_about_sampling() -> None:
    """A posterior draws whatever mode the user's network is in, and batch statistics never leak between examples."""
    x, y = small_classification()
    network = small_network().train()
    posterior = posterity.fit(network, (x, y), method=MeanField("weight", epochs=1), engine=Engine(progress=False))
    alone = posterior.draw(x[:1], 3, generator=torch.Generator().manual_seed(0))
    together = posterior.draw(x, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(alone, together[:, :1])
    assert network.training


def test_ensemble_members_weigh_the_same() -> None:
    posterior, (x, _) = fitted("ensemble-mle"), small_classification()
    assert posterior.predict(x, 32).probs.shape[0] == 33  # the next multiple of three members
    members = torch.stack([c.predict(x, 1).mean for c in posterior.components])
    torch.testing.assert_close(posterior.predict(x, 3).mean, members.mean(0))
    assert (members[0] - members[1]).abs().max() > 1e-3


def test_fewer_than_one_draw_is_refused() -> None:
    posterior, (x, _) = fitted("map"), small_classification()
    with pytest.raises(posterity.PosterityError, match="at least 1"):
        posterior.draw(x, 0)
