"""Laplace approximations: a Gaussian around a trained network, as wide as the curvature of the log joint there says.

    q(θ) = N(θ*, H⁻¹),    H = Σ_n J_nᵀ Λ_n J_n + P,    log p(D) ≈ log p(D, θ*) + R/2 log 2π − ½ log|H|

θ* is the MAP estimate, J_n = ∂f(θ*, x_n)/∂θ, Λ_n the curvature of −log p(y_n | f) in the outputs f, P the prior's precision, R
the number of random coordinates (MacKay 1992; Martens 2020; Daxberger et al. 2021). H is that of the whole data set, summed in
passes over the training data after training: one, or `passes` for `low_rank`.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from posterity.methods.base import Method, as_method
from posterity.methods.evidence import refuse_untunable, tuned
from posterity.methods.expansion import Expansion, expanded, prior_precision, refuse_uneven
from posterity.methods.map import MAP
from posterity.methods.passes import refuse_large
from posterity.methods.records import AnyMethod
from posterity.methods.refine import started
from posterity.model.informative import Informative
from posterity.model.outputs import refuse_bags, refuse_mixing, refuse_unknown
from posterity.model.priors import Normal, Product
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.point import Point
from posterity.types import Data, Engine, Prior

STRUCTURES = {"full": "full", "kron": "Kronecker", "diag": "diagonal", "low_rank": "low rank"}


@dataclass(frozen=True, config=STRICT)
class Laplace(Method):
    """A Gaussian around a trained network: `fit(network, data, where="last_layer", method=Laplace(MAP(epochs=20)))`.

    Which weights are random is the problem's `where`; the others are points, as in every method.

    Args:
        method: how θ* is found; None takes the network's present weights as they are, for networks trained elsewhere. They
            should be at a maximum of the log joint: trained with weight decay that is this prior's.
        structure: of H. `full`: all of it, memory R². `kron`: Kronecker factors for each layer (K-FAC). `diag`: the exact
            diagonal. `low_rank`: its largest eigenpairs, beside the prior.
        curvature: Λ_n. `ggn`: expected over targets, the generalised Gauss–Newton matrix. `fisher`: of the targets seen.
        prediction: by the network's linearisation at θ*, whose exact posterior H belongs to, or by drawing weights.
        link: how a linearised prediction averages class probabilities; see `Linearised.predict`.
        rank: of `low_rank`. passes: over the data, of `low_rank`.
        tune: fit the std of a Normal prior, one for all random weights or one for each layer, to the evidence.
        tune_noise: fit the std of a Gaussian likelihood to the evidence, too; a learnt one then is a number, not a latent.
        rounds: of training and tuning in turns, before the last training, where something is tuned (MacKay 1992).
        max_bytes: refuse a curvature that would take more memory than this.

    A learnt noise level is a coordinate like any other, at its MAP value and with its own curvature.

    >>> import posterity, torch
    >>> x = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
    >>> posterior = posterity.fit(
    ...     torch.nn.Linear(1, 1).double(), (x, 2 * x.squeeze()), likelihood=posterity.Gaussian(std=0.1),
    ...     prior=posterity.Normal(0, 1), method=Laplace(MAP(epochs=300, optimizer=posterity.Optimizer(lr=0.05)), "full"),
    ...     engine=posterity.Engine(progress=False))
    >>> round(posterior.predict(x[:1]).epistemic.sqrt().item(), 4), round(posterior.log_evidence, 1)
    (0.0431, 18.6)
    """

    method: AnyMethod | None = Field(default_factory=MAP)
    structure: Literal["full", "kron", "diag", "low_rank"] = "kron"
    curvature: Literal["ggn", "fisher"] = "ggn"
    prediction: Literal["linearised", "sampled"] = "linearised"
    link: Literal["sampled", "probit"] = "sampled"
    rank: Annotated[int, Field(ge=1)] = 20
    passes: Annotated[int, Field(ge=1)] = 3
    tune: Literal["network", "layer"] | None = None
    tune_noise: bool = False
    rounds: Annotated[int, Field(ge=1)] = 3
    max_bytes: Annotated[int, Field(ge=1)] = 2 * 2**30
    kind: Literal["laplace"] = "laplace"

    stages: ClassVar[tuple[str, ...]] = ("method",)

    @model_validator(mode="after")
    def _around_one(self) -> "Laplace":
        if self.method is not None and not as_method(self.method).centred:
            raise ValueError("an ensemble is not one network to be around: Ensemble(Laplace(…), n)")
        return self

    @property
    def title(self) -> str:
        return f"Laplace, {STRUCTURES[self.structure]}"

    @property
    def epochs(self) -> int | None:
        return 0 if self.method is None else as_method(self.method).epochs

    @property
    def patience(self) -> int | None:
        return None if self.method is None else as_method(self.method).patience

    @property
    def pace(self) -> str:
        return "none: the weights are as they were given" if self.method is None else as_method(self.method).pace

    @property
    def growing(self) -> tuple[str, ...]:
        fixed = self.method is None or self.tune or self.tune_noise
        return () if fixed else tuple(f"method.{n}" for n in as_method(self.method).growing)

    def twin(self) -> Method:
        return as_method(self.method or MAP()).twin()

    def prior_flaw(self, prior: Prior) -> str | None:
        if isinstance(prior, Normal | Product | Informative):
            return None
        return (
            f"--prior {getattr(prior, 'kind', type(prior).__name__)} is not normal, which laplace needs. Use --prior normal, "
            "with --method.tune layer to fit its scales."
        )

    def infer(self, problem: Problem, data: Data, engine: Engine) -> FunctionPosterior:
        """Train, measure the curvature, and return the posterior; its `log_evidence` is Laplace's.

        Raises:
            InvalidInput: for a prior that is not independent normals, for modules whose curvature would be wrong, for a
                likelihood whose Gauss–Newton curvature is not known, and for a matrix that takes more than `max_bytes`.
        """
        self._refuse(problem)
        if self.tune is None and not self.tune_noise:
            return self._posterior(self._expanded(problem, data, engine))
        for k in range(self.rounds):
            found = self._expanded(problem, data, engine.fork(f"round-{k + 1}"))
            problem = tuned(found, self.tune, self.tune_noise)
        return self._posterior(self._expanded(problem, data, engine.fork("last")))

    def _refuse(self, problem: Problem) -> None:
        """Say before the training what would be wrong after it."""
        random = frozenset(problem.coordinates.random_names)
        refuse_mixing(problem.network, random)
        if self.prediction == "linearised" or self.structure == "low_rank":
            refuse_bags(problem.network, random)
        refuse_unknown(problem.likelihood, self.curvature)
        refuse_large(problem, self)
        prior_precision(problem)
        if self.structure == "kron":
            refuse_uneven(problem)
        refuse_untunable(problem, self.tune, self.tune_noise, self.curvature)

    def _expanded(self, problem: Problem, data: Data, engine: Engine) -> Expansion:
        snapshot = problem.snapshot()
        if self.method is None:
            return expanded(Point(snapshot, snapshot.theta()), data, self)
        found = as_method(self.method).infer(problem, data, engine)
        return expanded(_point(problem, found), data, self)

    def _posterior(self, found: Expansion) -> FunctionPosterior:
        weights = found.gaussian()
        posterior = weights if self.prediction == "sampled" else Linearised(weights.problem, weights, self.link)
        posterior.provenance["log_evidence"] = float(found.log_evidence())
        posterior.provenance["remarks"] = found.point.provenance.get("remarks", [])
        return posterior


def _point(problem: Problem, found: FunctionPosterior) -> Point:
    """Return θ*: the point that a method found, or the mean of what it found, under the problem's own prior."""
    if isinstance(found, Point) and found.problem.prior is problem.prior:
        return found
    own = started(problem, found)
    return Point(own, own.theta(), provenance={"remarks": found.provenance.get("remarks", [])})
