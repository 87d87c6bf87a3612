"""A run that goes on is the same run, or is refused with what differs; what it goes on from is whole."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import safe_open, save_file
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

import posterity
from posterity import (
    MAP,
    MLE,
    SGHMC,
    Engine,
    Ensemble,
    Gaussian,
    Interrupted,
    Laplace,
    MeanField,
    Normal,
    Optimizer,
    Refine,
    TensorData,
)
from posterity.errors import CorruptFile, Diverged, Mismatch, PosterityWarning
from posterity.identity import plain_value
from posterity.train.batches import as_data
from posterity.train.digest import contents, digest
from posterity.types import Likelihood, Prior

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = X[:, 0] - X[:, 1]
CONSTANT = Optimizer(lr=0.01, schedule="constant")


def network(activation: type[nn.Module] = nn.ReLU, width: int = 3) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, width), activation(), nn.Linear(width, 1))


def data(x: torch.Tensor = X, y: torch.Tensor = Y, batch: int = 15) -> TensorData:
    return TensorData(x, y, batch, (X[:10], Y[:10]))


def fit(folder: Path, resume: bool = False, **changes):
    engine = {"seed": 0, **changes.pop("engine", {})}
    arguments = {
        "network": network(),
        "data": data(),
        "likelihood": Gaussian(std=0.3),
        "prior": Normal(0, 0.5),
        "method": MAP(epochs=3, optimizer=CONSTANT),
        **changes,
    }
    own = Engine(progress=False, device="cpu", directory=folder, resume=resume, **engine)
    return posterity.fit(arguments.pop("network"), arguments.pop("data"), engine=own, **arguments)


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


CHANGES = {
    "rate": ({"method": MAP(epochs=3, optimizer=replace(CONSTANT, lr=0.02))}, "method.optimizer.lr 0.01 → 0.02"),
    "schedule": ({"method": MAP(epochs=3)}, "method.optimizer.schedule constant → cosine"),
    "fewer epochs": ({"method": MAP(epochs=2, optimizer=CONSTANT)}, "method.epochs 3 → 2"),
    "patience": ({"method": MAP(epochs=3, optimizer=CONSTANT, patience=9)}, "method.patience none → 9"),
    "mle": ({"method": MLE(epochs=3, optimizer=CONSTANT)}, "method.kind map → mle"),
    "ensemble": ({"method": Ensemble(MAP(epochs=3, optimizer=CONSTANT), 2)}, "method.kind map → ensemble"),
    "laplace": ({"method": Laplace(MAP(epochs=3, optimizer=CONSTANT))}, "method.kind map → laplace"),
    "mean field": ({"method": MeanField(epochs=3)}, "method.kind map → mean_field"),
    "prior": ({"prior": Normal(0, 0.6)}, "prior.std 0.5 → 0.6"),
    "family of prior": ({"prior": posterity.StudentT(df=3.0, scale=0.5)}, "prior.kind normal → student_t"),
    "likelihood": ({"likelihood": Gaussian(std=0.4)}, "likelihood.std 0.3 → 0.4"),
    "learnt noise": ({"likelihood": Gaussian()}, "likelihood.std 0.3 → none"),
    "activation": ({"network": network(nn.Tanh)}, r"network.1 ReLU\(inplace=False\) → Tanh\(\)"),
    "width": ({"network": network(width=4)}, "in_features=4, out_features=3"),
    "where": ({"where": "last_layer"}, "random "),
    "seed": ({"engine": {"seed": 1}}, "seed 0 → 1"),
    "precision": ({"engine": {"precision": "bfloat16"}}, "precision float32 → bfloat16"),
    "batch": ({"data": data(batch=20)}, "data.batch size 15 → 20"),
    "validation": ({"data": TensorData(X, Y, 15, (X[:9], Y[:9]))}, "data.validation.inputs 10 × 4"),
    "no validation": ({"data": TensorData(X, Y, 15)}, "data.validation.inputs .* → none"),
    "other rows": ({"data": data(X[:50], Y[:50])}, "data.inputs 60 × 4 .* → 50 × 4"),
    "other values": ({"data": data(X + 1e-6, Y)}, "data.inputs 60 × 4"),
    "permuted": ({"data": data(X.flip(0), Y.flip(0))}, "data.inputs 60 × 4"),
    "other targets": ({"data": data(X, -Y)}, "data.targets 60 float32"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fit(folder)
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_another_run_is_refused_with_what_differs(name: str, finished: Path) -> None:
    changes, said = CHANGES[name]
    before = contents_of(finished)
    with pytest.raises(Mismatch, match=f"is of another run. What differs: .*{said}"):
        fit(finished, resume=True, **changes)
    assert contents_of(finished) == before


def test_the_same_run_goes_on_in_silence(finished: Path, recwarn: pytest.WarningsRecorder) -> None:
    again = fit(finished, resume=True)
    assert torch.equal(again.mean, fit(finished.parent / "anew").mean)
    assert not [w for w in recwarn if "goes on" in str(w.message)]


def test_weights_that_a_checkpoint_replaces_may_be_others_and_frozen_ones_may_not(tmp_path: Path) -> None:
    def frozen(seed: int, all_layers: bool) -> nn.Module:
        net = network()
        with torch.no_grad():
            for p in net.parameters() if all_layers else net[0].parameters():
                p.add_(seed)
        return net.requires_grad_(True) if all_layers else (net[0].requires_grad_(False), net)[1]

    first = fit(tmp_path / "a", network=frozen(0, True))
    assert torch.equal(fit(tmp_path / "a", True, network=frozen(1, True)).mean, first.mean)
    fit(tmp_path / "b", network=frozen(0, False))
    with pytest.raises(Mismatch, match="network.frozen"):
        fit(tmp_path / "b", True, network=frozen(1, False))
    kept = Ensemble(MAP(epochs=1), 2, reinitialise=False)
    fit(tmp_path / "c", network=frozen(0, True), method=kept)
    with pytest.raises(Mismatch, match="What differs: start "):
        fit(tmp_path / "c", True, network=frozen(1, True), method=kept)


LONGER = {
    "map": lambda n: MAP(epochs=n, optimizer=CONSTANT),
    "plateau": lambda n: MAP(epochs=n, optimizer=replace(CONSTANT, schedule="plateau", plateau_patience=1)),
    "warm-up": lambda n: MeanField(epochs=n, optimizer=CONSTANT, kl_schedule="warmup", warmup_epochs=5),
    "ensemble": lambda n: Ensemble(MAP(epochs=n, optimizer=CONSTANT), 1 + n // 8),
    "laplace": lambda n: Laplace(MAP(epochs=n, optimizer=CONSTANT)),
    "refine": lambda n: Refine(MeanField(epochs=n, optimizer=CONSTANT), after=MAP(epochs=2)),
}


@pytest.mark.parametrize("name", LONGER)
def test_a_run_grows_longer_as_if_it_had_been_asked_at_once(name: str, tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", method=LONGER[name](8))
    fit(tmp_path / "cut", method=LONGER[name](4))
    with pytest.warns(PosterityWarning, match="goes on: method.*epochs 4 → 8"):
        longer = fit(tmp_path / "cut", True, method=LONGER[name](8))
    for key, tensor in whole.tensors().items():
        assert torch.equal(tensor, longer.tensors()[key]), key


@pytest.mark.parametrize("method", [MAP, SGHMC, lambda epochs: Refine(MAP(), after=MAP(epochs, CONSTANT))])
def test_epochs_that_everything_depends_on_stay(method, tmp_path: Path) -> None:
    fit(tmp_path, method=method(epochs=8 if method is not SGHMC else 40))
    with pytest.raises(Mismatch, match=r"epochs .* → .*Only a rate that does not depend on the number of epochs"):
        fit(tmp_path, True, method=method(epochs=12 if method is not SGHMC else 60))


class Strange:
    """A method, a class of one's own."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.calls, self.tool = epochs, 0, object()

    def infer(self, problem, data, engine):
        self.calls += 1
        return MAP(epochs=self.epochs, optimizer=CONSTANT).infer(problem, data, engine)


class Wide(Prior):
    def __init__(self, std: float) -> None:
        self.std, self.table = std, {"a": torch.ones(3)}

    def log_prob(self, params):
        return sum(torch.distributions.Normal(0, self.std).log_prob(p).sum() for p in params.values())

    def sample(self, shapes, generator=None):
        return {n: self.std * torch.randn(s, generator=generator) for n, s in shapes.items()}


@dataclass(frozen=True)
class Cauchy(Likelihood):
    scale: float

    def __call__(self, outputs, latents):
        return torch.distributions.StudentT(3.0, outputs.squeeze(-1), self.scale)


def test_parts_of_ones_own_resume_and_are_told_apart(tmp_path: Path) -> None:
    own = {"method": Strange(3), "prior": Wide(0.5), "likelihood": Cauchy(1.0)}
    first = fit(tmp_path, **own)
    again = {"method": Strange(3), "prior": Wide(0.5), "likelihood": Cauchy(1.0)}
    assert torch.equal(fit(tmp_path, True, **again).mean, first.mean)
    for name, value, said in (
        ("prior", Wide(0.6), "prior.std 0.5 → 0.6"),
        ("likelihood", Cauchy(2.0), "likelihood.scale 1.0 → 2.0"),
        ("method", Strange(4), "method.epochs 3 → 4"),
    ):
        with pytest.raises(Mismatch, match=said):
            fit(tmp_path, True, **{**again, "method": Strange(3), name: value})


def test_loaders_are_known_by_what_they_hold_or_give_first(tmp_path: Path) -> None:
    class Rows(Dataset):
        """One's own, of nothing that lies in memory."""

        def __init__(self, scale: float) -> None:
            self.scale = scale

        def __len__(self) -> int:
            return 60

        def __getitem__(self, index: int):
            return X[index] * self.scale, Y[index]

    makers = {
        "tensors": lambda scale: DataLoader(TensorDataset(X * scale, Y), 15, shuffle=True),
        "own": lambda scale: DataLoader(Rows(scale), 15, shuffle=True),
        "list": lambda scale: posterity.LoaderData([(X[:30] * scale, Y[:30]), (X[30:], Y[30:])]),
    }
    for name, make in makers.items():
        first = fit(tmp_path / name, data=make(1.0))
        assert torch.equal(fit(tmp_path / name, True, data=make(1.0)).mean, first.mean)
        with pytest.raises(Mismatch, match="What differs: data."):
            fit(tmp_path / name, True, data=make(1.5))


def test_a_loader_that_gives_something_else_each_time_goes_on(tmp_path: Path) -> None:
    class Noisy(Dataset):
        def __len__(self) -> int:
            return 60

        def __getitem__(self, index: int):
            return X[index] + 0.01 * torch.rand(4, generator=GENERATOR), Y[index]

    GENERATOR = torch.Generator().manual_seed(0)
    fit(tmp_path, data=DataLoader(Noisy(), 15))
    fit(tmp_path, True, data=DataLoader(Noisy(), 15))


def test_a_chain_on_disk_is_compared_before_anything_happens_to_it(tmp_path: Path) -> None:
    chain = SGHMC(epochs=20, draws=10, on_disk=True)
    fit(tmp_path, method=chain)
    before = contents_of(tmp_path)
    with pytest.raises(Mismatch, match="method.draws 10 → 12"):
        fit(tmp_path, True, method=replace(chain, draws=12))
    engine = Engine(directory=tmp_path, resume=True, device="cpu")
    with pytest.raises(Mismatch, match=r"draws.safetensors holds other draws .* left as it is"):
        engine.mapped("draws", X[0], 10)
    assert contents_of(tmp_path) == before


def interrupted(folder: Path, method, after: int) -> None:
    rows = []

    def stop(name, row):
        rows.append(row)
        if len(rows) == after:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        fit(folder, method=method, engine={"on_epoch": stop})


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_a_last_checkpoint_that_is_lost_falls_back_on_the_one_before(damage: str, tmp_path: Path) -> None:
    method = MeanField(epochs=6)
    whole = fit(tmp_path / "whole", method=method)
    interrupted(tmp_path / "cut", method, 4)
    last = tmp_path / "cut" / "last.safetensors"
    harm(last, damage)
    with pytest.warns(PosterityWarning, match="goes on from the checkpoint before it, epoch"):
        found = fit(tmp_path / "cut", True, method=method)
    assert torch.equal(found.mean, whole.mean)
    assert torch.equal(found.std, whole.std)
    harm(last, "truncated")
    harm(last.with_name("previous.safetensors"), "truncated")
    with pytest.raises(CorruptFile, match="previous.safetensors is"):
        fit(tmp_path / "cut", True, method=method)


def harm(path: Path, damage: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-9])
    elif damage == "flipped":
        path.write_bytes(content[:-5] + bytes([content[-5] ^ 64]) + content[-4:])


@pytest.mark.parametrize("damage", ["truncated", "missing", "older", "flipped", "last"])
def test_the_best_is_never_another_in_silence(damage: str, tmp_path: Path) -> None:
    method = MAP(epochs=6, optimizer=CONSTANT)
    older = tmp_path / "older"
    interrupted(tmp_path / "run", method, 3)
    shutil.copy(tmp_path / "run" / "best.safetensors", older)
    fit(tmp_path / "run", True, method=method)
    path = tmp_path / "run" / "best.safetensors"
    if damage == "older":
        shutil.copy(older, path)
    elif damage == "last":
        shutil.copy(path.with_name("previous.safetensors"), path)
    else:
        harm(path, damage)
    with pytest.raises(CorruptFile, match=r"best.safetensors.*Put the file back"):
        fit(tmp_path / "run", True, method=method)


def test_the_best_is_not_another_runs(finished: Path, tmp_path: Path) -> None:
    fit(tmp_path / "other", engine={"seed": 1})
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.copy(tmp_path / "other" / "best.safetensors", run)
    with pytest.raises(Mismatch, match=r"best.safetensors is of another run. What differs: seed 1 → 0"):
        fit(run, True)


class Poisoned:
    """Data whose n-th batch turns everything that it meets into NaN, and stops the run at once where that is asked."""

    def __init__(self, after: int, stop: bool) -> None:
        self.inner, self.left, self.stop = TensorData(X, Y, 5), after, stop
        self.num_data, self.steps_per_epoch, self.validation = 60, 12, self.inner.validation

    def batches(self, epoch, generator):
        for inputs, targets in self.inner.batches(epoch, generator):
            self.left -= 1
            if self.left == 0:
                if self.stop:
                    os.kill(os.getpid(), signal.SIGINT)
                yield inputs * float("nan"), targets
            else:
                yield inputs, targets


@pytest.mark.parametrize("stop", [True, False])
def test_a_state_that_is_not_finite_takes_no_good_ones_place(stop: bool, tmp_path: Path) -> None:
    """In step 15, which nobody looks at: those of 10 and 12 are looked at."""
    problem = posterity.Problem(network(), Normal(0, 0.5), Gaussian(std=0.3), 60)
    engine = Engine(progress=False, device="cpu", directory=tmp_path)
    with pytest.raises(Diverged, match="became nan in epoch 2, between steps 1 and"):
        MAP(epochs=3).infer(problem, Poisoned(15, stop), engine)
    with safe_open(tmp_path / "last.safetensors", "pt") as file:
        assert bool(file.get_tensor("state.theta").isfinite().all())
        assert json.loads(file.metadata()["record"])["epoch"] == 1


def test_a_state_that_the_last_step_breaks_is_not_saved(tmp_path: Path) -> None:
    """The objective was finite, and the step that it led to was not."""

    class Breaking:
        def init(self, streams):
            return {"theta": torch.zeros(3), "step": torch.zeros(())}

        def update(self, state, batch):
            state["step"] += 1
            if state["step"] == 8:
                state["theta"].fill_(float("inf"))
            return state, {"nll": torch.tensor(1.0)}

        def posterior(self, state):
            raise AssertionError

    engine = Engine(progress=False, device="cpu", directory=tmp_path)
    with pytest.raises(Diverged, match=r"its theta, is no longer finite after epoch 2"):
        engine.run(Breaking(), TensorData(X, Y, 15), posterity.types.Budget(3, 4))
    with safe_open(tmp_path / "last.safetensors", "pt") as file:
        assert bool(file.get_tensor("state.theta").isfinite().all())


def test_checkpoints_of_earlier_versions_go_on_with_a_word(tmp_path: Path) -> None:
    method = MAP(epochs=6, optimizer=CONSTANT)
    whole = fit(tmp_path / "whole", method=method)
    interrupted(tmp_path / "old", method, 4)
    for name in ("last", "best", "previous"):
        path = tmp_path / "old" / f"{name}.safetensors"
        with safe_open(path, "pt") as file:
            record = json.loads(file.metadata()["record"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  # not a mapping
        for key in ("identity", "settings", "sha256"):
            record.pop(key, None)
        save_file(tensors, path, metadata={"record": json.dumps(record)})
    with pytest.warns(PosterityWarning, match="are of an earlier version, and what they were trained on"):
        assert torch.equal(fit(tmp_path / "old", True, method=method).mean, whole.mean)


def test_values_are_told_apart_and_what_has_no_name_breaks_nothing() -> None:
    assert plain_value(object()) == {"kind": "object"}
    assert plain_value(float("inf")) == "inf"
    assert digest(torch.zeros(3)) != digest(torch.zeros(3, dtype=torch.float64))
    assert digest(torch.tensor([1.0, 2.0]).bfloat16()) != digest(torch.tensor([2.0, 1.0]).bfloat16())
    assert contents([1, 2, 3]) != contents([1, 3, 2])
    assert contents({"a": [torch.ones(2)]}) == contents([torch.ones(2)])
    loop: dict[str, object] = {}
    loop["self"] = loop
    assert plain_value(loop)


def doubled(rows):
    x, y = default_collate(rows)
    return 2 * x, y


class Counted(Dataset):
    def __init__(self) -> None:
        self.asked = [0]

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int):
        self.asked[0] += 1
        return X[index], Y[index]


class Stream(IterableDataset):
    def __init__(self, seed: int) -> None:
        self.seed, self.scale = seed, torch.ones(2)

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        return ((torch.randn(2, generator=generator) * self.scale, torch.zeros(())) for _ in range(30))


def loaded(dataset: Dataset | None = None, **options):
    return as_data(DataLoader(dataset or TensorDataset(X[:30], Y[:30]), **{"batch_size": 10, **options})).content()


def test_what_a_loader_does_with_its_data_set_is_told_by_its_first_batch() -> None:
    plain = loaded()
    assert plain == loaded()
    assert loaded(num_workers=1) == plain
    assert loaded(shuffle=True) not in (plain, loaded(collate_fn=doubled))
    first, second = (torch.Generator().manual_seed(seed) for seed in (7, 8))  # both are seeded for each epoch
    assert loaded(shuffle=True, generator=first) == loaded(shuffle=True, generator=second)
    assert loaded(collate_fn=doubled) != plain
    assert loaded(Subset(TensorDataset(X, Y), range(30))) != loaded(Subset(TensorDataset(X, Y), range(5, 35)))
    few = torch.ones(30).index_fill(0, torch.arange(20), 0.01)
    assert loaded(sampler=WeightedRandomSampler(few, 30)) != loaded(sampler=WeightedRandomSampler(torch.ones(30), 30))
    assert loaded(Stream(1)) == loaded(Stream(1)) != loaded(Stream(2))


def test_a_data_set_that_counts_is_the_same_afterwards() -> None:
    dataset = Counted()
    before = loaded(dataset)
    assert loaded(dataset) == before == loaded(Counted())


def test_augmentations_are_told_apart_by_what_they_do() -> None:
    def content(augment):
        return TensorData(X, Y, augment=augment).content()

    assert content(lambda x, _: x) == content(lambda x, _: x) != content(lambda x, _: -x)
    assert content(lambda x, _: x + torch.rand(1)) == content(lambda x, _: x + torch.rand(1))


class Private:
    def __init__(self, std: float, link=None) -> None:
        self._std, self.link, self._cache = std, link, object()


class Slotted:
    __slots__ = ("_seen", "std")

    def __init__(self, std: float) -> None:
        self.std = std


def times(factor: float):
    return lambda x: x * factor


def test_constructors_arguments_and_code_without_a_name_are_known() -> None:
    assert plain_value(Private(1)) == plain_value(Private(1)) != plain_value(Private(2))
    assert plain_value(Slotted(1)) == plain_value(Slotted(1)) != plain_value(Slotted(2))
    assert plain_value(Private(1, lambda x: x)) == plain_value(Private(1, lambda x: x))
    assert plain_value(Private(1, lambda x: x)) != plain_value(Private(1, lambda x: -x))
    first, second, third = ([lambda x, k=k: x * k, times(k)] for k in (1, 2, 1))
    assert plain_value(first) == plain_value(third)
    assert all(plain_value(a) != plain_value(b) for a, b in zip(first, second, strict=True))

    def itself():
        return itself

    assert plain_value(itself)
    assert plain_value(torch.nn.functional.relu) == "torch.nn.functional.relu"


WRITTEN = """
import torch
from posterity import Likelihood

def bent(x):
    return torch.ACTIVATION(x)

class Net(torch.nn.Module):
    \"\"\"DOCUMENTED\"\"\"

    def __init__(self):
        super().__init__()
        self.inner, self.outer, self._end = torch.nn.Linear(4, 3), torch.nn.Linear(3, 1), torch.END

    def forward(self, x):
        return self._end(self.outer(bent(x=self.inner(x)))) * SCALE

class Noise(Likelihood):
    def __call__(self, outputs, latents):
        return torch.distributions.Normal(outputs.squeeze(-1), WIDTH)
"""


def written(kind: str, **changes: str):
    """Return what a script with these words in it makes of a class."""
    words = {
        "ACTIVATION": "relu",
        "END": "neg",
        "SCALE": "scale",
        "WIDTH": "0.3",
        "DOCUMENTED": "A network.",
        **changes,
    }
    text = WRITTEN
    for word, own in words.items():
        text = text.replace(word, own)
    script = {"__name__": "__main__", "scale": float(changes.get("scale", 1))}
    exec(text, script)
    return script[kind]()


def test_parts_of_one_name_are_told_apart_by_their_code(tmp_path: Path) -> None:
    fit(tmp_path, network=written("Net"), likelihood=written("Noise"))
    fit(tmp_path, True, network=written("Net", DOCUMENTED="Words alone."), likelihood=written("Noise"))
    for change in ({"ACTIVATION": "tanh"}, {"END": "exp"}, {"SCALE": "2.0"}, {"scale": "2"}):
        with pytest.raises(Mismatch, match="What differs: network.class Net"):
            fit(tmp_path, True, network=written("Net", **change), likelihood=written("Noise"))
    with pytest.raises(Mismatch, match="What differs: likelihood.code"):
        fit(tmp_path, True, network=written("Net"), likelihood=written("Noise", WIDTH="0.9"))


def test_what_an_object_computes_when_it_is_asked_is_none_of_its_settings() -> None:
    base = torch.distributions.Categorical(probs=torch.ones(2) / 2)
    before = plain_value(base)
    assert base.logits is not None
    assert plain_value(base) == before


def test_code_without_a_name_is_known_in_another_process() -> None:
    """Of sets of many texts, whose order is another one in nearly every process."""
    code = f"lambda x: x in {set('abcdefghijkl')} and (x, 2.5)"
    text = f"from posterity.identity import plain_value; print(plain_value({code}))"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    with contextlib.redirect_stdout(io.StringIO()) as here:
        exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
    assert done.stdout == here.getvalue()


def test_a_number_that_is_all_that_is_left_of_many_has_its_digest() -> None:
    assert digest(torch.ones(50)[::25][:1]) == digest(torch.ones(1))
