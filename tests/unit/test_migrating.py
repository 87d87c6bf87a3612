"""docs/migrating.md: what it says of this library runs, and its numbers are right."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

import posterity
import posterity.nn as pnn
from posterity import Normal, zoo
from posterity.cli.app import run

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
TEXT = PAGE.read_text(encoding="utf-8")
LIBRARIES = ["PyTorch-BayesianCNN", "MindSpore probability", "Bayesian-Torch", "BLiTZ", "torchbnn", "PyMC3"]


def blocks(title: str, text: str = TEXT) -> list[str]:
    return re.findall(rf'```python title="{title}"\n(.*?)```', text, re.S)


def section(library: str) -> str:
    return TEXT.split(f"\n## {library}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_after_of_each_library_runs(library: str) -> None:
    (before,), (after,) = blocks("before", section(library)), blocks("after", section(library))
    assert "posterity" not in before
    names: dict = {}
    torch.manual_seed(0)
    exec(compile(blocks("setup")[0], "setup", "exec"), names)
    exec(compile(after, library, "exec"), names)
    trained = next(names[n] for n in ("posterior", "bnn", "net") if n in names)
    posterior = trained if isinstance(trained, posterity.posteriors.base.FunctionPosterior) else None
    scores = (posterior or posterity.posterior(trained)).predict(names["images"]).scores(names["digits"].test_targets)
    assert scores["accuracy"] > 0.2  # an epoch or two; guessing has 0.1


def test_all_blocks_of_code_are_before_setup_or_after() -> None:
    shown = sum(len(blocks(title)) for title in ("before", "setup", "after"))
    assert shown == TEXT.count("```") / 2 == 1 + 2 * len(LIBRARIES)


def test_names_of_ours_exist() -> None:
    names = set(re.findall(r"\bposterity\.(\w+)\(", TEXT))
    assert {"bayesianize", "posterior", "kl", "deterministic", "fit", "load"} <= names
    assert all(hasattr(posterity, name) for name in names)
    assert all(hasattr(pnn, name) for name in re.findall(r"\bpnn\.(\w+)", TEXT))
    assert all(hasattr(zoo, name) for name in re.findall(r"\bzoo\.(\w+)", TEXT))


def test_keyword_arguments_of_mean_field_exist() -> None:
    names = {"MeanField": posterity.MeanField, "Optimizer": posterity.Optimizer}
    calls = [c for c in re.findall(r"`(MeanField\([^`]*\))`", TEXT) if "=T)" not in c and "=S)" not in c]
    assert calls
    assert all(isinstance(eval(call, names), posterity.MeanField) for call in calls)


def test_flags_of_the_command_line_exist(capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", "--help"])
    shown = capsys.readouterr().out
    commands = re.findall(r"`posterity train ([^`]*)`", TEXT)
    flags = {flag for command in commands for flag in re.findall(r"--[\w-]+", command)}
    assert {"--model", "--prior-std", "--epochs", "--method"} <= flags
    assert all(flag in shown for flag in flags)


def test_the_table_of_stds_is_softplus() -> None:
    rows = {row[0]: row[1:] for row in (line.strip("| ").split(" | ") for line in TEXT.splitlines() if "|" in line)}
    rhos = [float(rho.replace("−", "-")) for rho in rows["ρ"]]
    for rho, shown in zip(rhos, rows["`std`"], strict=True):
        assert torch.nn.functional.softplus(torch.tensor(rho)).item() == pytest.approx(float(shown), rel=5e-3)


def initialised(layer: nn.Module, rho: float) -> nn.Module:
    """Give means and ρ the starts N(0, 0.1²) and N(rho, 0.1²) of the libraries that jitter both."""
    torch.manual_seed(0)
    for name, parameter in layer.named_parameters():
        nn.init.normal_(parameter, rho if name.endswith("rho") else 0.0, 0.1)
    return layer


def test_the_reversed_divergence_of_lenet_and_the_right_one() -> None:
    lenet = posterity.bayesianize(zoo.LeNet(), prior=Normal(0, 0.1))
    initialised(lenet, -5.0)
    q = [TorchNormal(mean, lenet.std[name]) for name, mean in lenet.network.named_parameters()]
    reverse = sum(kl_divergence(TorchNormal(0.0, 0.1), part).sum().item() for part in q)
    assert "1.4·10⁷" in TEXT
    assert reverse == pytest.approx(1.4e7, rel=0.02)
    assert "1.7·10⁵" in TEXT
    assert posterity.kl(lenet).item() == pytest.approx(1.7e5, rel=0.02)


def test_the_averaged_divergence_of_a_linear_layer_and_the_sum() -> None:
    layer = initialised(pnn.Linear(100, 50, prior=Normal(0, 1)), -3.0)
    q = {name: TorchNormal(mean, layer.std[name]) for name, mean in layer.network.named_parameters()}
    averaged = sum(kl_divergence(part, TorchNormal(0.0, 1.0)).mean().item() for part in q.values())
    assert averaged == pytest.approx(5.1, rel=0.02)
    assert layer.kl().item() == pytest.approx(12_800, rel=0.02)


def test_the_pull_of_a_prior_with_a_floor_and_without() -> None:
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    floored = (TorchNormal(0.0, 0.1).log_prob(w).exp() + 1e-6).log()
    (pull,) = torch.autograd.grad(floored.sum(), [w])
    assert pull.item() == pytest.approx(-8e-14, rel=0.05)
    (pull,) = torch.autograd.grad(Normal(0, 0.1).log_prob({"w": w}), [w])
    assert pull.item() == pytest.approx(-100)


def test_flipout_of_a_constant_image_is_constant_over_it() -> None:
    layer = pnn.Conv2d(3, 4, 1, std=0.3, estimator="flipout")
    output = layer(torch.ones(5, 3, 6, 6))
    torch.testing.assert_close(output, output[..., :1, :1].expand_as(output))
    assert output[..., 0, 0].std(0).min() > 0  # and not between examples


def test_what_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT):
        assert (PAGE.parent / target).exists(), target
    for anchor in re.findall(r"\]\(#([^)]+)\)", TEXT):
        headings = {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in re.findall(r"^## (.*)$", TEXT, re.M)}
        assert anchor in headings, anchor
