"""What a DataLoader delivers: how many different data, in how many batches, of which sizes."""

import itertools
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

import posterity
from posterity import MAP, NUTS, Engine, Gaussian, InvalidInput, Laplace, LoaderData, Normal, TensorData
from posterity.errors import PosterityWarning

QUIET = Engine(progress=False, device="cpu")
X, Y = torch.ones(40, 1), torch.full((40,), 2.0)
PAIRS = TensorDataset(X, Y)
PAIRS_OF_NUMBERS = TensorDataset(X, torch.arange(40))


class Own(Sampler):
    """A stranger's sampler: any indices, of no known length."""

    def __init__(self, indices):
        self.indices = indices

    def __iter__(self):
        return iter(self.indices)


class Whole(Dataset):
    """Hands out whole batches of the sizes that it is given."""

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        return torch.ones(self.sizes[index], 1), torch.full((self.sizes[index],), 2.0)


class Stream(IterableDataset):
    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return ((torch.ones(1), torch.tensor(2.0)) for _ in range(self.length))


class Once(IterableDataset):
    def __init__(self):
        self.rows = iter([(torch.ones(1), torch.tensor(2.0))] * 5)

    def __iter__(self):
        return self.rows


class Shared(Stream):
    """Of several workers each delivers its share."""

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        rows = list(super().__iter__())
        return iter(rows if worker is None else rows[worker.id :: worker.num_workers])


class Shuffled(Sampler):
    """Batches that Python's and NumPy's random numbers cut, and whose length is only an estimate."""

    def __iter__(self):
        indices = np.random.permutation(40)  # noqa: NPY002  # as people write it
        batches = [indices[start : start + 7] for start in range(0, 40, 7)]
        random.shuffle(batches)
        return iter(batches)

    def __len__(self):
        return 5


class Anew(Sampler):
    """Other indices in each epoch."""

    epoch = 0

    def __init__(self, choose):
        self.choose = choose

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(self.choose(self.epoch))


class Mine:
    """A loader of a class of one's own."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return ((x.float(), y) for x, y in self.loader)


class Wrapped:
    """A loader of loaders that hands on what it likes of them."""

    def __init__(self, give, *loaders):
        self.give, self.loaders = give, loaders

    def __iter__(self):
        return iter(self.give(*self.loaders))


def pieces(loader):
    return (piece for x, y in loader for piece in zip(x.split(3), y.split(3), strict=True))


def labelled(items):
    return default_collate([(x, y) for x, y in items if y > 4]) if items[-1][1] > 4 else None


def nothing(items):
    return torch.zeros(len(items) % 5, 1), torch.zeros(len(items) % 5)


def padded(items):
    return tuple(torch.stack(column) for column in zip(*items, strict=True))


def joined(items):
    return tuple(torch.cat(column) for column in zip(*items, strict=True))


def without_some(items):
    return tuple(torch.stack(column) for column in zip(*items[: max(1, len(items) // 2)], strict=True))


LOADERS = {  # how the data are given: N, delivered, steps, smallest
    "plain": (lambda: DataLoader(PAIRS, 16), (40, 40, 3, 8)),
    "shuffled": (lambda: DataLoader(PAIRS, 16, shuffle=True), (40, 40, 3, 8)),
    "drop_last": (lambda: DataLoader(PAIRS, 16, drop_last=True), (32, 32, 2, 16)),
    "subset": (lambda: DataLoader(Subset(PAIRS, range(7)), 4), (7, 7, 2, 3)),
    "concatenated": (lambda: DataLoader(ConcatDataset([PAIRS, PAIRS]), 16), (80, 80, 5, 16)),
    "subset sampler": (lambda: DataLoader(PAIRS, 4, sampler=SubsetRandomSampler(range(10))), (10, 10, 3, 2)),
    "subset sampler, drop_last": (
        lambda: DataLoader(PAIRS, 4, sampler=SubsetRandomSampler(range(10)), drop_last=True),
        (8, 8, 2, 4),
    ),
    "a part of the data at a time": (
        lambda: DataLoader(PAIRS, 4, sampler=RandomSampler(PAIRS, num_samples=10)),
        (40, 10, 3, 2),
    ),
    "with replacement": (lambda: DataLoader(PAIRS, 4, sampler=RandomSampler(PAIRS, True, 80)), (40, 80, 20, 4)),
    "weighted": (
        lambda: DataLoader(PAIRS, 8, sampler=WeightedRandomSampler([1.0] * 30 + [0.1] * 10, 40)),
        (40, 40, 5, 8),
    ),
    "weighted by 0": (
        lambda: DataLoader(PAIRS, 8, sampler=WeightedRandomSampler([1.0] * 30 + [0.0] * 10, 40)),
        (30, 40, 5, 8),
    ),
    "of two ranks": (lambda: DataLoader(PAIRS, 8, sampler=DistributedSampler(PAIRS, 2, 0)), (40, 20, 3, 4)),
    "own sampler": (lambda: DataLoader(PAIRS, 4, sampler=Own(range(6))), (6, 6, 2, 2)),
    "own sampler, some twice": (lambda: DataLoader(PAIRS, 4, sampler=Own([0, 1, 2, 0, 1, 2, 3])), (4, 7, 2, 3)),
    "own batches": (lambda: DataLoader(PAIRS, batch_sampler=Own([[0, 1, 2], [3], [4, 5]])), (6, 6, 3, 1)),
    "batches by a sampler": (
        lambda: DataLoader(PAIRS, None, sampler=BatchSampler(SequentialSampler(PAIRS), 16, False)),
        (40, 40, 3, 8),
    ),
    "one by one": (lambda: DataLoader(PAIRS, 1), (40, 40, 40, 1)),
    "whole batches": (lambda: DataLoader(Whole([25] * 4), None), (100, 100, 4, 25)),
    "whole batches, ragged": (lambda: DataLoader(Whole([5, 25, 1]), None), (31, 31, 3, 1)),
    "whole batches, joined": (lambda: DataLoader(Whole([5] * 4), 2, collate_fn=joined), (20, 20, 2, 10)),
    "a collation that leaves some out": (lambda: DataLoader(PAIRS, 10, collate_fn=without_some), (20, 20, 4, 5)),
    "with replacement, padded": (
        lambda: DataLoader(PAIRS, 4, sampler=RandomSampler(PAIRS, True, 80), collate_fn=padded),
        (40, 80, 20, 4),
    ),
    "of two ranks, padded": (
        lambda: DataLoader(PAIRS, 8, sampler=DistributedSampler(PAIRS, 2, 0), collate_fn=padded),
        (40, 20, 3, 4),
    ),
    "weighted by 0, padded": (
        lambda: DataLoader(PAIRS, 8, sampler=WeightedRandomSampler([1.0] * 30 + [0.0] * 10, 40), collate_fn=padded),
        (30, 40, 5, 8),
    ),
    "shuffled by others": (lambda: DataLoader(PAIRS, batch_sampler=Shuffled()), (40, 40, 6, 5)),
    "shuffled by others, padded": (
        lambda: DataLoader(PAIRS, batch_sampler=Shuffled(), collate_fn=padded),
        (40, 40, 6, 5),
    ),
    "own loader": (lambda: Mine(DataLoader(PAIRS, 16, shuffle=True)), (40, 40, 3, 8)),
    "own loader of a part at a time": (
        lambda: Mine(DataLoader(PAIRS, 4, sampler=RandomSampler(PAIRS, num_samples=10))),
        (40, 10, 3, 2),
    ),
    "own loader of an own loader of one of two ranks": (
        lambda: Mine(Mine(DataLoader(PAIRS, 8, sampler=DistributedSampler(PAIRS, 2, 0)))),
        (40, 20, 3, 4),
    ),
    "tensors of one index": (lambda: DataLoader(PAIRS, 16, sampler=Own(torch.arange(40))), (40, 40, 3, 8)),
    "own buckets that leave some over": (
        lambda: DataLoader(PAIRS, batch_sampler=Anew(lambda _: torch.randperm(40)[:36].split(9))),
        (36, 36, 4, 9),
    ),
    "two loaders": (
        lambda: Wrapped(itertools.chain, DataLoader(PAIRS, 16), DataLoader(TensorDataset(X[:10], Y[:10]), 16)),
        (50, 50, 4, 8),
    ),
    "pieces of the batches of a weighted sampler": (
        lambda: Wrapped(pieces, DataLoader(PAIRS, 8, sampler=WeightedRandomSampler([1.0] * 40, 40), collate_fn=padded)),
        (40, 40, 15, 2),
    ),
    "as many batches as somebody wants": (
        lambda: Wrapped(lambda loader: itertools.islice(loader, 2), DataLoader(PAIRS, 16)),
        (32, 32, 2, 16),
    ),
    "list": (lambda: LoaderData([(X[:25], Y[:25]), (X[:6], Y[:6])]), (31, 31, 2, 6)),
    "stream": (lambda: DataLoader(Stream(37), 10), (37, 37, 4, 7)),
}


@pytest.mark.parametrize("name", LOADERS)
def test_what_an_epoch_delivers_is_counted(name):
    make, (num_data, delivered, steps, smallest) = LOADERS[name]
    loader = make()
    # Python's are not asked of: beartype, which checks types in tests, draws from them.
    state, theirs = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    data = (loader if isinstance(loader, LoaderData) else LoaderData(loader)).counted()
    assert torch.equal(state, torch.get_rng_state())
    assert theirs == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert (data.num_data, data.steps_per_epoch, data.smallest_batch) == (num_data, steps, smallest)
    assert data.mean_batch_size == delivered / steps
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes = [len(targets) for _, targets in data.batches(0, torch.Generator().manual_seed(0))]
    assert (sum(sizes), len(sizes), min(sizes)) == (delivered, steps, smallest)


def test_a_lent_seed_leaves_other_devices_alone(monkeypatch):
    """Samplers shuffle on the CPU; a seed that went to accelerators, too, would not be taken back."""
    seen = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seen.append)
    list(LoaderData(DataLoader(PAIRS, 8, shuffle=True)).counted().batches(0, torch.Generator().manual_seed(0)))
    assert seen == []


@pytest.mark.parametrize("name", LOADERS)
def test_maximum_a_posteriori_is_that_of_n_data(name):
    """y ~ N(θ, 1), θ ~ N(0, 1), all y = 2: the mode is 2 N/(N + 1), whatever the batches are."""
    make, (num_data, _, steps, _) = LOADERS[name]
    method = MAP(epochs=max(6, 100 // steps), optimizer=posterity.Optimizer("SGD", lr=0.15, momentum=0.0))
    posterior = posterity.fit(
        nn.Linear(1, 1, bias=False),
        make(),
        likelihood=Gaussian(std=1.0),
        prior=Normal(0, 1),
        method=method,
        engine=QUIET,
    )
    assert posterior.problem.num_data == num_data
    assert abs(posterior.mean.item() - 2 * num_data / (num_data + 1)) < 2e-3


@pytest.mark.parametrize(
    "name", ["plain", "a part of the data at a time", "with replacement", "own sampler, some twice"]
)
def test_the_curvature_counts_the_same_data(name):
    make, (num_data, *_) = LOADERS[name]
    method = Laplace(
        MAP(epochs=2, optimizer=posterity.Optimizer("SGD", lr=0.1, momentum=0.0)), "full", prediction="sampled"
    )
    posterior = posterity.fit(
        nn.Linear(1, 1, bias=False),
        make(),
        likelihood=Gaussian(std=1.0),
        prior=Normal(0, 1),
        method=method,
        engine=QUIET,
    )
    assert posterior.covariance.item() == pytest.approx(1 / (num_data + 1), rel=1e-5)


@pytest.mark.parametrize("structure", ["full", "kron", "diag", "low_rank"])
def test_every_structure_scales_to_n(structure):
    found = []
    for loader in (DataLoader(PAIRS, 8), DataLoader(PAIRS, 8, sampler=RandomSampler(PAIRS, True, 120))):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
        posterior = posterity.fit(
            network, loader, likelihood=Gaussian(std=1.0), method=Laplace(None, structure), engine=QUIET
        )
        found.append((posterior.moments(X[:1])[1].item(), posterior.log_evidence))
    assert found[0] == pytest.approx(found[1], rel=1e-4)  # all data are alike: what is drawn does not matter


def test_hamiltonian_methods_refuse_an_epoch_that_is_not_the_data():
    loader = DataLoader(PAIRS, 4, sampler=RandomSampler(PAIRS, num_samples=10))
    with pytest.raises(InvalidInput, match="delivers 10 of 40"):
        posterity.fit(nn.Linear(1, 1), loader, likelihood=Gaussian(std=1.0), method=NUTS(draws=4), engine=QUIET)


@pytest.mark.parametrize(
    "sampler",
    [lambda: RandomSampler(PAIRS, True), lambda: WeightedRandomSampler([1.0] * 40, 40), lambda: Own([0, 0, 1])],
)
def test_hamiltonian_methods_refuse_what_comes_twice(sampler):
    loader = DataLoader(PAIRS, 4, sampler=sampler())
    with pytest.raises(InvalidInput, match="of them again"):
        posterity.fit(nn.Linear(1, 1), loader, likelihood=Gaussian(std=1.0), method=NUTS(draws=4), engine=QUIET)


def test_hamiltonian_methods_refuse_batches_of_several_lengths():
    batches = LoaderData([(torch.ones(3, 2), Y[:3]), (torch.ones(3, 4), Y[:3])])
    network = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(1, 1))
    with pytest.raises(InvalidInput, match="Pad all of them to one length"):
        posterity.fit(network, batches, likelihood=Gaussian(std=1.0), method=NUTS(draws=4), engine=QUIET)


@pytest.mark.parametrize("stream", [Stream, Shared])
def test_workers_that_all_deliver_all_of_a_stream_deliver_no_more_data(stream):
    data = LoaderData(DataLoader(stream(11), 4, num_workers=2)).counted()
    assert data.num_data == 11


def test_a_resumed_run_sees_the_batches_that_are_left():
    """Whatever shuffles, the batches of an epoch depend on its number and our seed alone."""

    def loaders():
        yield DataLoader(PAIRS_OF_NUMBERS, 7, shuffle=True, generator=torch.Generator().manual_seed(3))
        yield DataLoader(
            PAIRS_OF_NUMBERS, 7, sampler=RandomSampler(range(40), True, 80, torch.Generator().manual_seed(3))
        )
        yield DataLoader(PAIRS_OF_NUMBERS, batch_sampler=Shuffled())
        yield DataLoader(PAIRS_OF_NUMBERS, 7, sampler=DistributedSampler(range(40), 2, 0))

    def order(data, epoch):
        batches = data.batches(epoch, torch.Generator().manual_seed(epoch))
        return torch.cat([targets for _, targets in batches]).tolist()

    for first, second in zip(loaders(), loaders(), strict=True):
        went_on, resumed = LoaderData(first).counted(), LoaderData(second).counted()
        earlier = order(went_on, 0)
        assert order(went_on, 1) == order(resumed, 1) != earlier


def test_n_that_is_given_counts():
    data = LoaderData(DataLoader(Stream(37), 10), num_data=1000).counted()
    assert (data.num_data, data.mean_batch_size) == (1000, 37 / 4)


def test_a_stream_without_an_end_is_cut_by_the_user():
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield torch.ones(1), torch.tensor(2.0)

    data = LoaderData(DataLoader(Endless(), 10), num_data=500, epoch_steps=7)
    counted = data.counted()
    assert (counted.num_data, counted.steps_per_epoch, counted.mean_batch_size) == (500, 7, 10)
    assert len(list(counted.batches(1, torch.Generator()))) == 7
    with pytest.raises(InvalidInput, match="give num_data"):
        LoaderData(DataLoader(Endless(), 10), epoch_steps=7)


def test_a_sampler_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr("posterity.train.census.MOST", 1000)

    class Endless(Sampler):
        def __iter__(self):
            while True:
                yield 0

    class Pretending(Endless):
        def __len__(self):
            return 40

    for sampler in (Endless(), Pretending()):
        with pytest.raises(InvalidInput, match="no end.*num_data=…, epoch_steps"):
            LoaderData(DataLoader(PAIRS, 4, sampler=sampler)).counted()


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (lambda: DataLoader(Once(), 2), "read once only"),
        (
            lambda: DataLoader(PAIRS, 5, sampler=Anew(lambda e: range(e % 4 * 10, e % 4 * 10 + 10))),
            "next 10 others.*Anew",
        ),
        (lambda: DataLoader(PAIRS, 5, sampler=Anew(lambda _: torch.randperm(40)[:10].tolist())), "num_data=…"),
        (lambda: DataLoader(PAIRS, 5, sampler=Anew(lambda e: range(e % 2, 40, 2))), "next 20 others"),
        (lambda: DataLoader(PAIRS, 8, sampler=Anew(lambda _: torch.randint(40, (40,)).tolist())), "num_data=…"),
        (lambda: Wrapped(lambda d: itertools.chain(d, d), DataLoader(PAIRS, 8)), "some come twice"),
        (lambda: Wrapped(itertools.chain, DataLoader(PAIRS, 8), DataLoader(PAIRS, 8)), "some come twice"),
        (
            lambda: Wrapped(lambda d: itertools.islice(d, 2), DataLoader(PAIRS, 8, shuffle=True)),
            "One epoch of the DataLoader shows 16 data",
        ),
        (lambda: DataLoader(PAIRS_OF_NUMBERS, 4, collate_fn=labelled), "gave a NoneType"),
        (lambda: DataLoader(PAIRS, batch_sampler=Own([[0, 1], [2] * 5, [3]]), collate_fn=nothing), "Batch 1.*no data"),
        (
            lambda: {"train": DataLoader(PAIRS), "test": DataLoader(PAIRS)},
            r"LoaderData\(data\['train'\], data\['test'\]\)",
        ),
        (lambda: DataLoader(Stream(0), 2), "gives no batches"),
        (lambda: DataLoader(Whole([5, 5]), None, sampler=Own([0, 1, 0])), "Say how many there are: LoaderData"),
        (
            lambda: DataLoader(Whole([5] * 4), None, sampler=DistributedSampler(Whole([5] * 4), 2, 0)),
            "2 of the indices",
        ),
        (lambda: LoaderData(DataLoader(PAIRS), (X, Y)), "a data set, not batches of it"),
        (lambda: LoaderData(DataLoader(PAIRS), DataLoader(Whole([]), None)), "validation loader gives no batches"),
        (lambda: iter([(X, Y)]), r"list_iterator, which can be read once only.*LoaderData\(list"),
        (lambda: [(X, Y)] * 3, r"LoaderData\(batches\)"),
        (lambda: ((X, Y), (X, Y)), "held_out="),
        (lambda: [(X, Y)] * 2, r"Of a list of batches: LoaderData\(batches\)"),
        (lambda: (DataLoader(PAIRS), DataLoader(PAIRS)), "LoaderData\\(loader, validation_loader"),
    ],
)
def test_what_cannot_be_counted_is_refused_with_the_way_out(loader, says):
    with pytest.raises(InvalidInput, match=says):
        posterity.fit(nn.Linear(1, 1), loader(), likelihood=Gaussian(std=1.0), method=MAP(epochs=1), engine=QUIET)


def test_an_epoch_that_delivers_otherwise_says_so():
    class Growing(Whole):
        def __getitem__(self, index):
            self.sizes[index] += 1
            return super().__getitem__(index)

    data = LoaderData(DataLoader(Growing([5, 5]), None)).counted()
    with pytest.warns(PosterityWarning, match="delivered 16 data, and 13 were counted"):
        list(data.batches(0, torch.Generator()))


@pytest.mark.parametrize(("n", "size", "sizes"), [(129, 128, [129]), (257, 128, [128, 129]), (256, 128, [128, 128])])
def test_a_single_example_that_is_left_over_joins_the_batch_before(n, size, sizes):
    data = TensorData(torch.zeros(n, 1), torch.arange(n), size)
    batches = list(data.batches(0, torch.Generator().manual_seed(0)))
    assert [len(targets) for _, targets in batches] == sizes == data.sizes
    assert torch.equal(torch.cat([targets for _, targets in batches]).sort().values, torch.arange(n))


@pytest.mark.parametrize("n", [1, 2, 3, 127])
def test_small_sets_are_one_batch(n):
    assert TensorData(torch.zeros(n, 1), torch.zeros(n)).sizes == [n]


def test_the_accuracy_of_validation_is_that_of_known_labels():
    """However many of a batch are known: here 2 of 4, of which 1 is right, and 4 of 4, all of them right."""
    torch.manual_seed(0)
    network, rows = nn.Linear(1, 2), []
    x = torch.randn(8, 1)
    labels = network(x).argmax(1)
    labels[:2] = -100
    labels[2] = 1 - labels[2]
    data = LoaderData(DataLoader(TensorDataset(x, labels), 4), DataLoader(TensorDataset(x, labels), 4))
    still = MAP(epochs=1, optimizer=posterity.Optimizer("SGD", lr=1e-12, momentum=0.0))
    engine = Engine(progress=False, device="cpu", on_epoch=lambda _, row: rows.append(row))
    posterity.fit(network, data, method=still, engine=engine)
    assert rows[0]["validation"]["accuracy"] == pytest.approx(5 / 6) == rows[0]["accuracy"]
