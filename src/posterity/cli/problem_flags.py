"""The flags that say what is to be inferred: the data, the network, its prior and its likelihood."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter

DATA, PROBLEM = Group("Data", sort_key=1), Group("Network, prior, likelihood", sort_key=2)
RUN = Group("Run", sort_key=4)
PRIORS = (
    "normal: independent normals; --prior-std",
    "laplace: most weights small; --prior.scale",
    "student_t: a few large weights are shrunk little; --prior.df, --prior.scale",
    "cauchy: still heavier tails; --prior.scale",
    "scale_mixture: a narrow and a wide normal; --prior.pi, --prior.std1, --prior.std2",
    "horseshoe: nearly all weights zero, the others free; --prior.scale, --prior.slab-std",
    "hierarchical: the scale is inferred too; --prior.per tensor (layer, row, network), --prior.scale.kind half_normal",
    "flat: none at all, for --method mle",
    "mixture, product: of several priors, which a file says (--config)",
    "module:callable: of your own",
)

LIKELIHOODS = (
    "categorical, bernoulli: classes; two of them",
    "gaussian, heteroscedastic: numbers, of one noise level, or one for each row",
    "student_t: numbers of which some are far off; --likelihood.df",
    "mixture_density: numbers of several kinds for the same inputs; --likelihood.components 3",
    "quantile: quantiles alone, by the pinball loss, which is no density; --likelihood.levels 0.05,0.5,0.95",
    "poisson, negative_binomial: counts; the second where they vary more than their mean",
    "zero_inflated: counts with more zeros than that; --likelihood.counts.kind negative_binomial",
    "binomial: successes among so many trials; --likelihood.trials 10",
    "log_normal, gamma, weibull: numbers above 0, of a noise that grows with them; the last of times to a failure",
    "beta: shares, above 0 and below 1",
    "censored, multivariate_gaussian: several columns of targets, from Python alone",
    "ordinal: grades from 0 on; --likelihood.grades 5, --task regression",
    "module:callable: of your own",
)


@dataclass(frozen=True)
class Key:
    """The key of `run.toml` that a flag stands for."""

    path: str


@Parameter(name="*")
@dataclass(frozen=True)
class ProblemSettings:
    """What is to be inferred, and from what; None leaves a key as the file or the default has it."""

    split: Annotated[
        str | None,
        Key("data.split"),
        Parameter(group=DATA, metavar="INT", help="Which published split; of your own file: the seed of the split."),
    ] = None
    split_by: Annotated[
        str | None,
        Key("data.split_by"),
        Parameter(
            group=DATA,
            metavar="HOW",
            help="Of your own table: time:COLUMN, the last fifth is tested on; group:COLUMN, each group is on one side alone. "
            "Rows of validation, too. [drawn by the seed, each class by its share]",
        ),
    ] = None
    image_size: Annotated[
        str | None,
        Key("data.image_size"),
        Parameter(group=DATA, metavar="INT", help="Pixels. [the model's; resnet20: any from 8]"),
    ] = None
    target: Annotated[
        str | None,
        Key("data.target"),
        Parameter(group=DATA, metavar="COLUMN", help="Target column of a table. [the last]"),
    ] = None
    task: Annotated[
        str | None,
        Key("data.task"),
        Parameter(group=DATA, metavar="TASK", help="classification or regression, where the target does not tell."),
    ] = None
    test: Annotated[
        str | None,
        Key("data.test"),
        Parameter(group=DATA, metavar="FILE", help="A table of its own to test on. [a fifth of the table]"),
    ] = None
    drop: Annotated[
        str | None,
        Key("data.drop"),
        Parameter(group=DATA, metavar="COLUMNS", help="Columns of a table to leave out: --drop id,name."),
    ] = None
    keep: Annotated[
        str | None,
        Key("data.keep"),
        Parameter(group=DATA, metavar="COLUMNS", help="Columns to keep that seem to say nothing, as identifiers."),
    ] = None
    root: Annotated[
        str | None,
        Key("data.root"),
        Parameter(group=DATA, metavar="DIR", help="Folder to look for data files in first."),
    ] = None
    model: Annotated[
        str | None,
        Key("model.name"),
        Parameter(
            group=PROBLEM,
            metavar="NAME",
            help="lenet, alexnet, alexnet_half, 3conv3fc, small_cnn, resnet20, mlp, mlp:50-50 or module:callable. "
            "[lenet; tables: mlp:16-16-16-16, classes mlp:50; beside another method mlp:50]",
        ),
    ] = None
    prior: Annotated[
        str | None,
        Key("prior.kind"),
        Parameter(
            group=PROBLEM,
            metavar="NAME",
            help="\n".join(("[tables: of the method that is chosen; else normal, std 0.3]", *PRIORS)),
        ),
    ] = None
    prior_std: Annotated[
        str | None,
        Key("prior.std"),
        Parameter(group=PROBLEM, metavar="STD", help="Of every weight, under the prior normal."),
    ] = None
    likelihood: Annotated[
        str | None,
        Key("likelihood.kind"),
        Parameter(
            group=PROBLEM,
            metavar="NAME",
            help="\n".join(("[categorical, or heteroscedastic; gaussian beside another method]", *LIKELIHOODS)),
        ),
    ] = None
    seed: Annotated[str | None, Key("seed"), Parameter(group=RUN, metavar="INT", help="Of everything random. [0]")] = (
        None
    )
    set_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            negative="",
            group=RUN,
            metavar="KEY=VALUE",
            help="Any key of run.toml: --set prior.fan_in=true, or shorter --prior.fan-in; may be repeated.",
        ),
    ] = ()
