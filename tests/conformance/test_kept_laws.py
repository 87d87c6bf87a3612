"""Laws 17 to 19 turn red where what they ask for is broken."""

import pytest

from posterity.conformance import judge
from posterity.conformance.subjects import SUBJECTS


def test_law_17_sees_weights_that_were_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(problem: object, seed: int) -> tuple[str, ...]:
        for module in problem.network.modules():  # type: ignore[attr-defined]
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        return ()

    assert judge(SUBJECTS["ensemble"], 17).passed
    monkeypatch.setattr("posterity.methods.ensemble.reinitialise", careless)
    assert judge(SUBJECTS["ensemble"], 17).failed


@pytest.mark.parametrize("name", ["map", "mean_field-weight", "sghmc"])
def test_law_17_sees_statistics_of_the_new_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(SUBJECTS[name], 17).passed
    monkeypatch.setattr("posterity.model.problem.still", lambda network: frozenset())
    assert judge(SUBJECTS[name], 17).failed


@pytest.mark.parametrize("name", ["mean_field-weight", "sgld", "swag", "laplace-diag"])
def test_law_18_sees_statistics_of_other_functions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(SUBJECTS[name], 18).passed
    monkeypatch.setattr("posterity.fitting.with_statistics", lambda posterior, data: posterior)
    for module in ("base", "samples"):
        monkeypatch.setattr(f"posterity.posteriors.{module}.say_of_statistics", lambda lacking: None)
    assert judge(SUBJECTS[name], 18).failed


@pytest.mark.parametrize("name", ["mean_field-flipout", "sghmc", "laplace-diag", "hmc"])
def test_law_19_sees_a_row_of_padding_that_is_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(SUBJECTS[name], 19).passed
    monkeypatch.setattr("posterity.model.coordinates.constants", lambda network: {})
    assert judge(SUBJECTS[name], 19).failed
