"""The active-learning study: labels needed for 95 % on digits and MNIST, chosen by BALD, its relatives, and at random.

Monte Carlo dropout at rate 0.25 with Normal(0, 1), 300 steps of Adam from fresh weights for each fit. digits: an MLP 100-100,
a pool of 1,437, 10 labels bought at a time, 64 draws. MNIST: LeNet, a pool of 5,000, of which 2,000 drawn ones are looked at
before each choice, 20 labels at a time, 20 draws, scored on 2,000 test images. All begin with the same 20 random labels of a
seed. Settings were tried on seed 100.

    python benchmarks/active_learning.py run     # docs/results/active_learning/DATA/SCORE-SEED.json; a stopped run goes on
    python benchmarks/active_learning.py table   # docs/results/active_learning.md and its figures
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from posterity.cli.app import run as posterity
from posterity.cli.curves import read_curves
from posterity.decide import Round, labels_needed
from posterity.report.learning_curves import plot_learning_curves

ROOT = Path(__file__).parent.parent / "docs"
FOLDER = ROOT / "results" / "active_learning"
COMMON = "--method mc_dropout --method.rate 0.25 --lr 0.002 --steps 300 --start 20"
STUDIES = {
    "digits": "--model mlp:100-100 --labels 240 --buy 10 --predictive-draws 64 --seeds 5 "
    "--scores bald batch_bald entropy random",
    "mnist": "--model lenet --labels 900 --buy 20 --predictive-draws 20 --pool-size 5000 --candidates 2000 --test-size 2000 "
    "--seeds 3 --scores bald random",
}
TARGETS = (0.9, 0.95)
SINCE = (
    "Since these runs a batch of B data weighs B. Labels are taken in shuffled batches of 128, so that with up to 128 nothing "
    "moved; with more, the last batch of an epoch is short, most of all with 130 labels, where each of the two in it weighed "
    "64 times what another did in that epoch. Who they are changes with every epoch: what this brought is noise of the "
    "gradients, and no way to choose was favoured. The study was not run again."
)


def page() -> str:
    """A table per data set: labels needed for 90 and 95 %, for each way to choose."""
    assert __doc__ is not None
    about = __doc__.split("\n\n")[1].replace("\n", " ")
    lines = ["# What choosing labels is worth", "", f"`python benchmarks/active_learning.py run`. {about}", "", SINCE]
    for data in STUDIES:
        curves = read_curves(FOLDER / data)
        if not curves:
            continue
        plot_learning_curves(curves, TARGETS[-1]).savefig(ROOT / "figures" / f"active_learning_{data}.svg")
        first = json.loads(next((FOLDER / data).glob("*-*.json")).read_text())
        last = next(iter(curves.values()))[0][-1].labels
        heads = " | ".join(f"labels for {100 * t:g} %" for t in TARGETS)
        lines += [
            "",
            f"## {data}",
            "",
            f"{first['machine']}; {first['threads']} thread; commit {first['commit']}; {first['date']}. Labels of the first "
            f"fit that reaches it on test data, of {last} at most: mean ± standard deviation over seeds, then each.",
            "",
            f"| chosen by | seeds | {heads} | accuracy at {last} labels, % | NLL |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_row(name, seeds) for name, seeds in curves.items()]
        lines += ["", f"![Learning curves](../figures/active_learning_{data}.svg)", "", "*Mean and range over seeds.*"]
    return "\n".join(lines) + "\n"


def _row(name: str, seeds: Sequence[Sequence[Round]]) -> str:
    needed = [_needed([labels_needed(rounds, target) for rounds in seeds]) for target in TARGETS]
    last = [[rounds[-1].scores[key] for rounds in seeds] for key in ("accuracy", "nll")]
    accuracy, nll = _spread([100 * v for v in last[0]], 2), _spread(last[1], 3)
    return f"| {name.replace('_', ' ')} | {len(seeds)} | {' | '.join(needed)} | {accuracy} | {nll} |"


def _needed(found: Sequence[int | None]) -> str:
    each = ", ".join("–" if n is None else str(n) for n in found)
    reached = [n for n in found if n is not None]
    if len(reached) < len(found):
        return f"{len(reached)} of {len(found)} reach it ({each})"
    return f"{_spread(reached, 0)} ({each})"


def _spread(values: Sequence[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    some = commands.add_parser("run")
    some.add_argument("data", nargs="*", choices=[*STUDIES, []], default=list(STUDIES))
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "run":
        torch.set_num_threads(1)
        for data in options.data:
            flags = f"{COMMON} {STUDIES[data]} --set engine.device=cpu".split()
            code = posterity(["acquire", data, *flags, "--target", "0.95", "--out", str(FOLDER / data)])
            if code:
                sys.exit(code)
        return
    FOLDER.with_suffix(".md").write_text(page(), encoding="utf-8")
    print(page())


if __name__ == "__main__":
    main()
