"""Networks that torch wraps or alters: each is inferred by its plain form, or refused by name with the cure."""

import copy
import threading
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper, offload_wrapper
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

import posterity
from posterity import Engine, InvalidInput, MeanField, bayesianize, deterministic, fit
from posterity.model.plain import plain

X = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
QUIET = Engine(progress=False, device="cpu")


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")


def compiled_in_place(net: nn.Module) -> nn.Module:
    net.compile(backend="eager")
    return net


def compiled_forward(net: nn.Module) -> nn.Module:
    net.forward = torch.compile(net.forward, backend="eager")
    return net


def in_place_of_a_part(wrap) -> nn.Module:
    net = mlp()
    net[0] = wrap(net[0])
    return net


WRAPS = {
    "compiled": compiled,
    "compiled in place": compiled_in_place,
    "compiled forward": compiled_forward,
    "data parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "checkpointed": checkpoint_wrapper,
    "offloaded": offload_wrapper,
    "two at once": lambda net: compiled(nn.DataParallel(compiled(net))),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
def test_a_wrapped_network_is_inferred_by_its_plain_form(wrap, part: bool, tmp_path) -> None:
    network = in_place_of_a_part(wrap) if part else wrap(mlp())
    before = copy.deepcopy(mlp().state_dict())
    expected = fit(mlp(), (X, Y), method=MeanField(epochs=2), engine=QUIET)
    posterior = fit(network, (X, Y), method=MeanField(epochs=2), engine=QUIET)
    assert posterior.problem.coordinates.random_names == expected.problem.coordinates.random_names
    torch.testing.assert_close(posterior.mean, expected.mean)
    for name, value in plain(network).state_dict().items():
        assert torch.equal(value, before[name]), name  # the user's own is as it was
    posterior.save(tmp_path / "p.safetensors")
    for form in (mlp(), wrap(mlp())):
        again = posterity.load(tmp_path / "p.safetensors", form)
        assert torch.equal(again.mean, posterior.mean)
        torch.testing.assert_close(
            again.predict(X, 4, generator=torch.Generator().manual_seed(1)).mean,
            posterior.predict(X, 4, generator=torch.Generator().manual_seed(1)).mean,
        )


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_bayesian_modules_have_the_plain_names_and_come_back(wrap) -> None:
    bnn = bayesianize(wrap(mlp()))
    assert bnn.random_names == ("0.weight", "0.bias", "2.weight", "2.bias")
    again = deterministic(wrap(bayesianize(mlp())))
    assert list(again.state_dict()) == list(mlp().state_dict())
    torch.testing.assert_close(again(X), mlp()(X))
    assert posterity.posterior(wrap(bayesianize(mlp()))).problem.coordinates.random_names == bnn.random_names


def test_distributed_data_parallel_is_unwrapped(tmp_path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = nn.parallel.DistributedDataParallel(mlp())
        posterior = fit(network, (X, Y), method=MeanField(epochs=1), engine=QUIET)
    finally:
        torch.distributed.destroy_process_group()
    assert posterior.problem.coordinates.random_names[0] == "0.weight"


@pytest.mark.parametrize("how", ["FullyShardedDataParallel", "fully_shard"])
def test_sharded_networks_are_refused_by_name(how: str, tmp_path) -> None:
    from torch.distributed import fsdp
    from torch.distributed.device_mesh import init_device_mesh

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = mlp()
        if how == "fully_shard":
            fsdp.fully_shard(network[0], mesh=init_device_mesh("cpu", (1,)))
        else:
            network = fsdp.FullyShardedDataParallel(network, device_id=torch.device("cpu"))
        with pytest.raises(InvalidInput, match="sharded by FSDP.*before FSDP or fully_shard"):
            fit(network, (X, Y), engine=QUIET)
    finally:
        torch.distributed.destroy_process_group()


class Inner(nn.Module):
    """Its computation is compiled and held as an attribute, which remembers the module that it was made in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.run = torch.compile(self.compute, backend="eager")

    def compute(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


@pytest.mark.parametrize("ran", [False, True])
def test_a_compiled_method_computes_with_the_copy(ran: bool) -> None:
    network = nn.Sequential(Inner(), nn.Tanh())
    if ran:
        network(X)
    copied = plain(network)
    with torch.no_grad():
        copied[0].layer.weight.zero_()
    assert torch.equal(copied(X), copied[0].layer.bias.tanh().expand(len(X), 2))
    assert fit(network, (X, Y), method=MeanField(epochs=1), engine=QUIET).predict(X, 2).mean.shape == (20, 2)


def test_tied_weights_stay_tied_through_a_wrapper() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    network = plain(nn.Sequential(compiled(first), second))
    assert network[0].weight is network[1].weight
    assert network[0].weight is not first.weight


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.fx.symbolic_trace(mlp()),
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2))),
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(2, 2))),
        lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(2, 2))),
        lambda: nn.Sequential(nn.Flatten(), mlp()).apply(lambda module: None),
    ],
)
def test_what_is_plain_already_trains_predicts_and_is_saved(make, tmp_path) -> None:
    posterior = fit(make(), (X, Y), method=MeanField(epochs=1), engine=QUIET)
    posterior.save(tmp_path / "p.safetensors")
    assert torch.equal(posterity.load(tmp_path / "p.safetensors", make()).mean, posterior.mean)
    assert posterior.predict(X, 3).mean.isfinite().all()


def old(norm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(norm(nn.Linear(2, 2)))


def quantised(how: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "dynamic":
            return nn.Sequential(torch.ao.quantization.quantize_dynamic(mlp(), {nn.Linear}), nn.Linear(2, 2))
        network = mlp().train()
        network.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
        return torch.ao.quantization.prepare_qat(network)


def functional() -> nn.Module:
    from torch._functorch.make_functional import make_functional

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_functional(mlp())[0]


def scripted(how: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(mlp()) if how == "script" else torch.jit.trace(mlp(), X)


REFUSED = {
    "script": (lambda: scripted("script"), r"RecursiveScriptModule\) is a ScriptModule.*was scripted"),
    "trace": (lambda: scripted("trace"), "is a ScriptModule"),
    "a scripted part": (lambda: nn.Sequential(scripted("script")), "'0' .*is a ScriptModule"),
    "a scripted function": (lambda: nn.Sequential(mlp(), torch.jit.script(nn.ReLU())), "'1' .*is a ScriptModule"),
    "export": (lambda: torch.export.export(mlp(), (X,)).module(), "an exported program.*was exported"),
    "old weight norm": (
        lambda: old(nn.utils.weight_norm),
        "'0' .Linear. is old-style weight_norm.*parametrizations.weight_norm",
    ),
    "old spectral norm": (lambda: old(nn.utils.spectral_norm), "old-style spectral_norm.*remove_spectral_norm"),
    "pruned": (lambda: nn.Sequential(prune.l1_unstructured(nn.Linear(2, 2), "weight", 1)), "pruned.*prune.remove"),
    "pruned at random": (lambda: prune.random_unstructured(nn.Linear(2, 2), "bias", 1), "The network .* is pruned"),
    "quantised": (lambda: quantised("dynamic"), "quantised.*float network"),
    "quantisation aware": (lambda: quantised("aware"), "quantised or prepared for it"),
    "functional": (lambda: functional(), "a function without parameters.*made of"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(2)), "has no shape yet.*inputs"),
    "lazy statistics": (lambda: nn.Sequential(mlp(), nn.LazyBatchNorm1d(affine=False)), "'running_mean'.*no shape yet"),
    "meta": (lambda: nn.Linear(2, 2, device="meta"), "meta device"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("door", [lambda net: fit(net, (X, Y), engine=QUIET), bayesianize], ids=["fit", "bayesianize"])
def test_what_has_no_plain_form_is_refused_by_name(case: str, door) -> None:
    make, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        door(make())


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (
            lambda: old(nn.utils.weight_norm),
            lambda layer: parametrizations.weight_norm(nn.utils.remove_weight_norm(layer)),
        ),
        (
            lambda: old(nn.utils.spectral_norm),
            lambda layer: parametrizations.spectral_norm(nn.utils.remove_spectral_norm(layer)),
        ),
        (
            lambda: nn.Sequential(prune.l1_unstructured(nn.Linear(2, 2), "weight", 1)),
            lambda layer: prune.remove(layer, "weight"),
        ),
    ],
)
def test_the_cure_trains(make, cure) -> None:
    network = make()
    network[0] = cure(network[0])
    assert fit(network, (X, Y), method=MeanField(epochs=1), engine=QUIET).predict(X, 2).mean.shape == (20, 2)


class Locked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.lock = nn.Linear(2, 2), threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return self.layer(x)


class Running(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.rows = nn.Linear(2, 2), (x for x in X)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Itself(nn.Linear):
    def __deepcopy__(self, memo: dict) -> nn.Module:
        return self


class Scripting(nn.Module):
    """Holds a scripted function, at which a copy raises what pickle does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.double = torch.jit.script(doubled)

    def forward(self, x: Tensor) -> Tensor:
        return self.double(self.layer(x))


def doubled(x: Tensor) -> Tensor:
    return 2 * x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Scripting, "Scripting cannot be copied: its attribute 'double' is a ScriptFunction"),
        (lambda: Itself(2, 2), r"Itself cannot be copied: its __deepcopy__ gives back the same"),
        (lambda: nn.Sequential(nn.ReLU(), Itself(2, 2)), r"'1' \(Itself\) cannot be copied: its __deepcopy__"),
        (Locked, "Locked cannot be copied: its attribute 'lock' is a lock"),
        (lambda: nn.Sequential(Running(), nn.ReLU()), r"'0' \(Running\) cannot be copied: its attribute 'rows'"),
    ],
)
def test_what_cannot_be_copied_is_named(make, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        fit(make(), (X, Y), engine=QUIET)
