"""Random numbers by name: seed → (part of the work, purpose), each a generator of its own; the global ones are lent one."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import torch
from torch import Generator, Tensor


def derived_seed(*parts: object) -> int:
    """Turn a path of names and numbers into a seed of 63 bits.

    >>> derived_seed(0, "data", 1) == derived_seed(0, "data", 1) != derived_seed(0, "data", 2)
    True
    """
    return int.from_bytes(sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 1


GLOBAL = "torch."  # what the names of torch's own streams start with


class NamedStreams:
    """Generators by purpose, made when first asked for; their states can be saved and put back.

    >>> streams = NamedStreams(0, "run", torch.device("cpu"))
    >>> saved = {name: state.clone() for name, state in streams.states().items()}
    >>> float(torch.rand((), generator=streams("noise"))) == float(torch.rand((), generator=NamedStreams(0, "run")("noise")))
    True
    """

    def __init__(self, seed: int, name: str, device: torch.device | None = None) -> None:
        self.seed, self.name, self.device = seed, name, device or torch.device("cpu")
        self._generators: dict[str, Generator] = {}
        self._globals: dict[str, Generator] = {}
        self._resumed: dict[str, Tensor] = {}

    def __call__(self, purpose: str) -> Generator:
        if purpose not in self._generators:
            generator = Generator(device=self.device)
            generator.manual_seed(derived_seed(self.seed, self.name, purpose))
            self._generators[purpose] = generator
        return self._generators[purpose]

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let torch's global random numbers, which dropout layers draw from, be a stream of this run inside of the block."""
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            own = {"cpu": torch.default_generator}
            if cuda:
                index = torch.cuda.current_device() if self.device.index is None else self.device.index
                own["cuda"] = torch.cuda.default_generators[index]
            self._globals = {f"{GLOBAL}{name}": generator for name, generator in own.items()}
            for name, generator in self._globals.items():
                generator.manual_seed(derived_seed(self.seed, self.name, name))
            yield
        self._globals = {}

    def states(self) -> dict[str, Tensor]:
        return {purpose: g.get_state() for purpose, g in {**self._generators, **self._globals}.items()}

    def restore(self, states: dict[str, Tensor]) -> None:
        """Go on from saved states; what is of another kind of device begins anew, by a seed of its own."""
        for purpose, state in states.items():
            generator = self._globals.get(purpose) or (None if purpose.startswith(GLOBAL) else self(purpose))
            if generator is not None and generator.get_state().shape == state.shape:
                generator.set_state(state)
        self._resumed = {name: state for name, state in states.items() if name in self._globals}

    def again(self) -> None:
        """Put the global numbers back where a checkpoint had them: to skip batches may have used some up."""
        for name, state in self._resumed.items():
            self._globals[name].set_state(state)
