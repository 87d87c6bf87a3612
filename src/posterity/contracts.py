"""What may be one's own: each contract, and the few types that they speak of. See `docs/your-own.md`.

>>> from posterity.contracts import Method
>>> class Nothing(Method):
...     def infer(self, problem, data, engine): ...
>>> Nothing().title
'Nothing'
"""

from posterity.methods.base import Method
from posterity.posteriors.base import FunctionPosterior as Posterior
from posterity.types import Batch, Budget, Data, Engine, Info, Latent, Likelihood, Params, Prior, State, Streams
from posterity.types import Stepping as Inference

__all__ = [
    "Batch",
    "Budget",
    "Data",
    "Engine",
    "Inference",
    "Info",
    "Latent",
    "Likelihood",
    "Method",
    "Params",
    "Posterior",
    "Prior",
    "State",
    "Streams",
]
