"""Random numbers by name: seed → (part of the work, purpose), each a generator of its own, with no global state."""

from hashlib import sha256

import torch
from torch import Generator, Tensor


def derived_seed(*parts: object) -> int:
    """Turn a path of names and numbers into a seed of 63 bits.

    >>> derived_seed(0, "data", 1) == derived_seed(0, "data", 1) != derived_seed(0, "data", 2)
    True
    """
    return int.from_bytes(sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 1


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

    def __call__(self, purpose: str) -> Generator:
        if purpose not in self._generators:
            generator = Generator(device=self.device)
            generator.manual_seed(derived_seed(self.seed, self.name, purpose))
            self._generators[purpose] = generator
        return self._generators[purpose]

    def states(self) -> dict[str, Tensor]:
        return {purpose: g.get_state() for purpose, g in self._generators.items()}

    def restore(self, states: dict[str, Tensor]) -> None:
        for purpose, state in states.items():
            self(purpose).set_state(state)
