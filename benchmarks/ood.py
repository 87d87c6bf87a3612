"""MNIST inside, notMNIST and Fashion-MNIST outside: does LeNet know what it was not trained on, with softplus and with ReLU?

    python benchmarks/ood.py run        # every fit and score that is not there yet, then the page and the picture
    python benchmarks/ood.py table      # the page alone: docs/results/ood.md

Mean field, an ensemble of 5 of it, and the deterministic twin, each with three seeds. The 5 members of an ensemble are fits
of their own seeds, and no two ensembles share one; a row of mean field is the first member of an ensemble. One JSON per row
and seed below docs/results/ood/; trained posteriors are kept in runs/ood/, so that whatever is stopped goes on from there.
"""

import argparse
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

import posterity
from posterity import MLE, Engine, MeanField, Normal, Optimizer, TensorData
from posterity.bench.bound import Bounds
from posterity.bench.machine import provenance
from posterity.bench.study import NELBO, Column, Job, Published, Record, Study, remaining, work
from posterity.bench.table import collect, markdown
from posterity.data import load
from posterity.metrics.ood import ood_auroc
from posterity.metrics.scores import evaluate
from posterity.posteriors.average import Averaging
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.ood import mean_variances, out_of_distribution, uncertainties
from posterity.predict.predictive import Classification
from posterity.zoo import LeNet

OUT, FITS = Path("docs/results/ood"), Path("runs/ood")
FIGURE = Path("docs/figures/ood_inlier_outlier.svg")
MEMBERS, DRAWS = 5, 80  # functions of a prediction: all of one posterior, or 16 of each member
VALIDATION, OUTSIDE = 5_000, 5_000  # images held out of the training set; images of each other set
PRIOR = Normal(0, 0.3)
OTHERS = ("notmnist", "fashion-mnist")
SHORT = {"notmnist": "notMNIST", "fashion-mnist": "Fashion"}
TWIN, SINGLE, ENSEMBLE = "twin", "mean_field", "ensemble"
ASKED = 0.97


@dataclass(frozen=True)
class Size:
    """How large the study is; the defaults are those of the page."""

    seeds: int = 3
    epochs: int = 4
    members: int = MEMBERS
    images: int = 60_000
    fits: Path = FITS


def study(size: Size) -> Study:
    """Describe the study: a table for each activation."""
    columns = [
        Column("accuracy", "accuracy", 100.0),
        Column("nll", "NLL", 1.0, 4),
        Column("ece", "ECE", 100.0),
        NELBO,
        *(
            Column(f"{measure}_{other}", f"{SHORT[other]} by {title}", 100.0)
            for other in OTHERS
            for measure, title in (
                ("mutual_information", "MI"),
                ("entropy", "entropy"),
                ("max_probability", "max-prob."),
            )
        ),
        Column("aleatoric_softmax", "aleatoric", 1.0, 4),
        Column("epistemic_softmax", "epistemic", 1.0, 4),
    ]
    published = [Published("variational LeNet-5, 2019", {"aleatoric_softmax": ".0096", "epistemic_softmax": ".0026"})]
    return Study(
        name="ood",
        title="MNIST against notMNIST and Fashion-MNIST",
        about=(
            f"LeNet on 32×32 images, standardised by the training pixels; {size.epochs} epochs of batches of 128 on "
            "55,000 images, temperature 1, Normal(0, 0.3); mean field by weight draws; a prediction averages "
            f"{DRAWS} functions, of an ensemble an equal number of each member's; the test set is touched once. "
            "AUROC, in per cent, of telling the 10,000 test images from "
            f"{OUTSIDE:,} test images of another set, drawn once: MI is the mutual information, max-prob. one minus the "
            "largest mean probability; a point has no mutual information. Accuracy and ECE (15 bins) in per cent, NLL in nats; "
            "−ELBO of the training data, in nats per datum, in the epoch that was kept, of an ensemble the members' mean. "
            "Aleatoric and epistemic: class-wise variances of the softmax form (Kwon et al. 2018), means over classes and test "
            "images; the published ones are taken to be means over the same two axes."
        ),
        sets=("softplus", "relu"),
        methods={
            TWIN: "maximum likelihood (the twin)",
            SINGLE: "mean field",
            ENSEMBLE: f"ensemble of {size.members}, mean field",
        },
        repeats=10,
        usual=3,
        repeat="seed",
        error="standard deviation",
        columns={"softplus": columns, "relu": columns},
        published={"softplus": published, "relu": []},
        sources="Shridhar et al. 2019, with softplus",
        run=partial(run, size),
        variational=frozenset({SINGLE, ENSEMBLE}),
    )


def run(size: Size, job: Job, folder: Path) -> Record:
    """Train what is missing of one row with one seed, and score it."""
    first = job.repeat * size.members
    if job.method == ENSEMBLE:
        posterior = Mixture.of(tuple(fitted(size, job.data, SINGLE, first + k) for k in range(size.members)))
    else:
        posterior = fitted(size, job.data, job.method, first if job.method == SINGLE else job.repeat)
    averaging = Averaging(DRAWS, job.repeat)
    images, labels, outside = data()
    start = time.perf_counter()
    inside = averaging.predict(posterior, images)
    assert isinstance(inside, Classification)
    known = uncertainties(inside, torch.Generator().manual_seed(job.repeat))
    scores = {**evaluate(inside, labels), **mean_variances(inside)}
    for name, others in outside.items():
        strange = uncertainties(averaging.predict(posterior, others), torch.Generator().manual_seed(job.repeat))
        scores |= {f"{measure}_{name}": ood_auroc(known[measure], strange[measure]) for measure in known}
    parts = posterior.components if isinstance(posterior, Mixture) else (posterior,)
    for name in ("nelbo", "nelbo_fall"):
        if name in parts[0].provenance:
            scores[name] = fmean(part.provenance[name] for part in parts)
    return {
        "scores": scores,
        "seconds": {
            "fit": sum(part.provenance["seconds"] for part in parts),
            "predict": round(time.perf_counter() - start, 1),
        },
        "seeds": [part.provenance["seed"] for part in parts],
        "prior": repr(PRIOR),
        "fit": parts[0].provenance,
        **provenance(),
    }


def fitted(size: Size, activation: str, method: str, seed: int) -> FunctionPosterior:
    """Train LeNet with one seed, or load what was trained before."""
    path = size.fits / f"{activation}-{method}-{seed}.safetensors"
    if path.exists():
        return posterity.load(path, LeNet(activation=activation))
    whole = load("mnist", image_size=32).standardised()
    train = TensorData(whole.train_inputs[: size.images], whole.train_targets[: size.images], batch_size=128)
    train = train.split(VALIDATION / len(whole.train_inputs), seed=123)  # the same for all seeds
    chosen = (
        MLE(epochs=size.epochs, optimizer=Optimizer(lr=2e-3))
        if method == TWIN
        else MeanField(epochs=size.epochs, optimizer=Optimizer(lr=8e-3, schedule="one_cycle"))
    )
    torch.manual_seed(seed)
    start = time.perf_counter()
    bounds = Bounds()
    engine = Engine(seed=seed, device="cpu", progress=False, on_epoch=bounds)
    posterior = posterity.fit(LeNet(activation=activation), train, prior=PRIOR, method=chosen, engine=engine)
    posterior.provenance |= {"seconds": round(time.perf_counter() - start, 1), **bounds.scores()}
    path.parent.mkdir(parents=True, exist_ok=True)
    posterior.save(path)
    print(f"  fitted {path.stem} in {posterior.provenance['seconds']:.0f} s", flush=True)
    return posterior


def data() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the test images and labels of MNIST, and some test images of the other sets, scaled alike."""
    mnist = load("mnist", image_size=32).standardised()
    assert mnist.scaling is not None
    outside = {}
    for name in OTHERS:
        images = load(name, image_size=32).test_inputs
        some = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:OUTSIDE]
        outside[name] = mnist.scaling.scale_inputs(images[some])
    return mnist.test_inputs, mnist.test_targets, outside


def verdicts(found: dict[str, dict[str, list[Record]]]) -> str:
    """Hold what was asked for against what was found."""
    lines = []
    for activation, rows in found.items():
        twins = [record["scores"] for record in rows.get(TWIN, [])]
        for method in (SINGLE, ENSEMBLE):
            own = [record["scores"] for record in rows.get(method, [])]
            for other in OTHERS if own and twins else ():
                value = fmean(s[f"mutual_information_{other}"] for s in own)
                rival = fmean(s[f"max_probability_{other}"] for s in twins)
                kept = "yes" if value >= ASKED and value > rival else "no"
                names = f"{activation} | {method.replace('_', ' ')} | {SHORT[other]}"
                lines.append(f"| {names} | {100 * value:.2f} | {100 * rival:.2f} | {kept} |")
    heads = "activation | posterior | against | AUROC by MI | twin's, by max-prob. | ≥ 97 and above the twin's"
    head = f"| {heads} |\n|{'---|' * 6}"
    return "\n".join([head, *lines])


def table(size: Size, out: Path) -> str:
    """Write the page."""
    chosen = study(size)
    found = collect(chosen, out)
    picture = (
        f"![An inlier above an outlier, with the variances of each class]({'../figures/' + FIGURE.name})\n\n*{CAPTION}*"
    )
    told = f"{verdicts(found)}\n\n{picture}\n\n{SINCE}" if out == OUT else verdicts(found)
    page = markdown(chosen, found, told).replace("`posterity bench ood`", "`python benchmarks/ood.py run`")
    out.with_suffix(".md").write_text(page, encoding="utf-8")
    return page


SINCE = (
    "The posteriors are fits of four epochs, stopped early; how far they had come was not recorded (`run` records it since). "
    "Since these runs a batch of B data weighs B: here the last of the 430 batches of an epoch holds 88 images of 128, each of "
    "which weighed 1.45 times what it would elsewhere. The order is shuffled, so the objective was right on average, and the "
    "table was not run again. LeNet has no batch normalisation."
)
CAPTION = (
    "The test images of median mutual information of MNIST and of notMNIST, by the ensemble with softplus, seed 0: aleatoric "
    "and epistemic variance of each class, in both forms."
)


def figure(size: Size, path: Path) -> None:
    """Draw the inlier and the outlier."""
    from posterity.report.ood import plot_pair

    posterior = Mixture.of(tuple(fitted(size, "softplus", SINGLE, k) for k in range(size.members)))
    images, _, outside = data()
    sets = {name: some[:2000] for name, some in outside.items()}
    found = out_of_distribution(posterior, images[:2000], sets, averaging=Averaging(DRAWS))
    low, high = float(images.min()), float(images.max())
    pictures = {
        name: (part[found.examples[name].row] - low) / (high - low) for name, part in {"inside": images, **sets}.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    classes = load("mnist", image_size=32).classes
    plot_pair(found, "notmnist", classes, pictures, "mnist").savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--activations", nargs="+", choices=("softplus", "relu"), default=["softplus", "relu"])
    parser.add_argument("--methods", nargs="+", choices=(TWIN, SINGLE, ENSEMBLE), default=[TWIN, SINGLE, ENSEMBLE])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4, help="fewer are for a trial, as are --members, --images")
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--fits", type=Path, default=FITS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = Size(options.seeds, options.epochs, options.members, options.images, options.fits)
    chosen = study(size)
    if options.command == "run":
        jobs = chosen.jobs(options.activations, options.methods, options.seeds)
        print(f"{len(remaining(jobs, options.out))} of {len(jobs)} rows are to be done.", flush=True)
        for job, record in work(chosen, jobs, options.out):
            told = {key: round(value, 4) for key, value in record.get("scores", {}).items() if "_information_" in key}
            print(job.data, job.method, job.repeat, told or record.get("error", ""), flush=True)
        if ENSEMBLE in options.methods and "softplus" in options.activations:
            figure(size, FIGURE if options.out == OUT else options.out.with_suffix(".svg"))
    print(table(size, options.out))


if __name__ == "__main__":
    main()
