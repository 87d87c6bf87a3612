"""The laws by number, and what is asked of whom. 14 and 15 are about the house, and asked in its tests."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from posterity.conformance import function_laws, kept_laws, posterior_laws
from posterity.conformance.subject import Subject
from posterity.conformance.verdict import Check, Verdict, worst


@dataclass(frozen=True)
class Law:
    """A law: what it says in one line, the field of `Subject` that it needs, and the function that measures."""

    number: int
    says: str
    needs: str
    measure: Callable[[Subject], list[Check]] | None


LAWS = {
    law.number: law
    for law in (
        Law(1, "the exact posterior of conjugate regression", "covariance", posterior_laws.conjugate),
        Law(2, "KL(q‖p) is 0 at q = p, and that of torch", "kl", posterior_laws.divergence),
        Law(3, "one draw is one function", "infer", function_laws.coherent),
        Law(4, "a layer's outputs have the analytic moments (gradients: tests)", "layer", function_laws.layer_moments),
        Law(5, "data given twice count twice (batches: tests)", "covariance", posterior_laws.data_counted),
        Law(6, "interrupt and resume: bit for bit", "resumed", function_laws.resumed),
        Law(7, "two ranks: equal gradients, own noise (tests only)", "", None),
        Law(8, "deepcopy, pickle and files keep every draw", "infer", function_laws.copied),
        Law(9, "float64 is NumPy's; autocast stays finite", "infer", function_laws.precise),
        Law(10, "runs in vmap and torch.compile", "module", function_laws.transformed),
        Law(11, "mistakes are refused before anything changes", "refuses", function_laws.refused),
        Law(12, "total = aleatoric + epistemic", "infer", function_laws.decomposed),
        Law(13, "known densities are sampled", "sample", posterior_laws.sampled),
        Law(16, "one datum, one weight, however the data are cut", "batched", posterior_laws.cut),
        Law(17, "what is frozen stays", "infer", kept_laws.frozen),
        Law(18, "running statistics are those of the function", "infer", kept_laws.normalised),
        Law(19, "rows of padding are constants", "infer", kept_laws.padded),
    )
}


def judge(subject: Subject, number: int) -> Verdict:
    """Hold one subject to one law; an exception of the subject breaks it.

    >>> from posterity.conformance.subjects import SUBJECTS
    >>> judge(SUBJECTS["map"], 2).note
    'no KL in its objective'
    """
    law = LAWS[number]
    if number in subject.not_applicable:
        return Verdict(number, "not applicable", note=subject.not_applicable[number])
    if law.measure is None or getattr(subject, law.needs) is None:
        return Verdict(number, "not asked", note="" if law.measure is None else f"the adapter has no {law.needs}")
    start = time.process_time()
    try:
        checks = law.measure(subject)
        verdict = worst(number, checks) if checks else Verdict(number, "not asked", note="nothing to measure")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        verdict = Verdict(number, "broken", note=reason)
    return replace(verdict, seconds=time.process_time() - start)
