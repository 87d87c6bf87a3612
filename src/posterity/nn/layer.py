"""What all explicit layers share: torch's layer inside, its hyperparameters in sight, its weights only by name."""

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, ClassVar

from torch import nn

from posterity.model.bayesianize import Bayesian, EstimatorName
from posterity.model.initial import InitialStd
from posterity.types import Prior


class Layer(Bayesian):
    """A layer of `torch.nn` with every parameter random, q(w) = N(μ, σ²), drawn anew at each call.

    Args:
        *args, **kwargs: those of the torch layer, which also gives μ its first values.
        prior: of the parameters, or one for each name pattern; names are torch's, as 'weight' and 'bias'. `Normal(0, 0.3)`
            unless given.
        std: σ at the start: a number; `Relative(0.1)`, that fraction of |w|; or a tensor for each parameter's name.
        estimator: how gradients are drawn: 'weight', 'local_reparam' or 'flipout'; see `MeanField`. An operation that is not
            linear in its weight (recurrence, attention) draws whole weights whatever the estimator.

    Raises:
        InvalidInput: where prior, std or estimator do not fit the layer.
        TypeError: from torch's layer, for arguments that are not its own.

    Forward takes and returns what torch's layer does. Hyperparameters can be read as in torch (`layer.in_features`); weights
    cannot, since there is no one value: `layer.network.weight` is the mean, `layer.std["weight"]` is σ, and
    `layer.draw()["weight"]` a draw.

    A class of your own takes two lines: `class Bilinear(Layer): torch_layer = nn.Bilinear`.
    """

    torch_layer: ClassVar[type[nn.Module]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        given = signature(cls.torch_layer)
        own = [p for p in signature(Layer.__init__).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
        theirs = sorted([*given.parameters.values(), *own], key=lambda p: p.kind)  # **kwargs come last
        cls.__signature__ = given.replace(parameters=theirs)  # type: ignore[attr-defined]  # what help() shows

    def __init__(
        self,
        *args: Any,
        prior: Prior | Mapping[str, Prior] | None = None,
        std: InitialStd = 0.02,
        estimator: EstimatorName = "weight",
        **kwargs: Any,
    ) -> None:
        super().__init__(self.torch_layer(*args, **kwargs), "*", prior, estimator, std)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            network = self.__dict__.get("_modules", {}).get("network")
            if network is None or name.startswith("_"):
                raise
        plain = {**{n: p for n, p in network._parameters.items() if p is None}, **vars(network)}
        if name in plain:
            return plain[name]
        if name in dict(network.named_parameters()):
            raise AttributeError(
                f"'{name}' of {type(self).__name__} is random and has no one value: its mean is .network.{name}, its std is "
                f".std['{name}'], a draw is .draw()['{name}']."
            )
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __repr__(self) -> str:
        parts = [part for part in (self.network.extra_repr(), self.extra_repr()) if part]
        return f"{type(self).__name__}({', '.join(parts)})"
