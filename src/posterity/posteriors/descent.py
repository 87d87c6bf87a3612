"""What a posterior remembers of the descent that it is the end of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Descent:
    """A descent of the nelbo that ended in a posterior, at a temperature: whose gradients can be asked whether it arrived."""

    temperature: float = 1.0
