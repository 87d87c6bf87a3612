"""Kill small runs of every method at random moments, resume them, and compare what comes out with a run left alone.

    python benchmarks/soak.py --kills 500 --seed 0

Each round is one run of one method: it is started, killed (SIGKILL, SIGINT or SIGTERM) after a random time, resumed, killed
again, and in the end left to finish. Its posterior file must be the file of the uninterrupted run, byte for byte. The methods
are those of `posterity.methods`, each alone, in an ensemble, and with its draws on disk where it has that.

Runs are forked from one process that has imported everything and computed nothing. A round depends on the seed and its number
alone, and each finished one is a line of the results: a soak that is itself stopped goes on where it was.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import torch

import posterity
from posterity.methods import AnyMethod, Ensemble
from posterity.storage import append_text, replace_text

RESULTS = Path("docs/results/soak.jsonl")
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
KILLS = (1, 2, 3, 4)  # of one round
PATIENCE = 300  # seconds until a run is called stuck
# A few steps of everything: options of whatever name a method has them under.
SMALL = {
    "epochs": 3,
    "draws": 4,
    "exploration": 0.5,
    "chains": 2,
    "warmup": 8,
    "max_depth": 3,
    "iterates": 8,
    "rank": 2,
    "n": 2,
    "cycles": 2,
    "lr": 0.02,
}
SMALL |= {"burn_in": 0.25, "rounds": 1, "leapfrog": 3, "steps": 3}
INTERRUPTED = 130


def small(method: Any, **more: Any) -> Any:
    """Give a method few steps, and those inside of it."""
    changes = dict(more)
    for one in fields(method):
        value = getattr(method, one.name)
        if hasattr(value, "infer"):
            changes[one.name] = small(value, **{k: v for k, v in more.items() if hasattr(value, k)})
        elif one.name in SMALL and isinstance(value, int | float) and one.name not in changes:
            changes[one.name] = type(value)(SMALL[one.name])
    own = {one.name for one in fields(method)}
    return replace(method, **{k: v for k, v in changes.items() if k in own})


def variants() -> dict[str, Any]:
    """Return every method of the library, alone, with its draws on disk, and in an ensemble, by name."""
    found: dict[str, Any] = {}
    for kind in get_args(get_args(AnyMethod)[0]):
        method = small(kind())
        found[method.kind] = method
        if any(hasattr(part, "on_disk") for part in (method, getattr(method, "method", None))):
            found[f"{method.kind}, on disk"] = small(kind(), on_disk=True)
    for name, method in list(found.items()):
        if not isinstance(method, Ensemble):
            found[f"ensemble of {name}"] = Ensemble(method, 2)
    return found


def run(method: Any, folder: Path, resume: bool) -> None:
    """Fit a small problem, and save its posterior."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    y = (x[:, 0] > x[:, 1]).long()
    torch.manual_seed(0)
    layers = torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.1)
    if samples_all(method):
        layers = (torch.nn.ReLU(),)
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), *layers, torch.nn.Linear(8, 2))
    engine = posterity.Engine(device="cpu", progress=False, directory=folder, resume=resume)
    data = posterity.TensorData(x, y, 10, (x[:8], y[:8]))
    posterity.fit(network, data, prior=posterity.Normal(0, 0.5), method=method, engine=engine).save(
        folder / "posterior"
    )


def samples_all(method: Any) -> bool:
    """Tell whether a method samples every parameter with all data at once, and takes no network that normalises."""
    while getattr(method, "method", None) is not None:
        method = method.method
    return hasattr(method, "warmup")


def child(method: Any, folder: Path, resume: bool) -> int:
    """Fork a process that does one run, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        warnings.simplefilter("ignore")
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
        run(method, folder, resume)
        code = 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:
        (folder / "error.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def ended(pid: int, seconds: float) -> int | None:
    """Wait so long at most; return the exit code (negative: by a signal), or None where it still runs."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        left = until - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(left, 0.001))


def finish(method: Any, folder: Path, resume: bool) -> tuple[str, float]:
    """Let a run come to its end; return what went wrong, if anything, and its seconds."""
    started = time.monotonic()
    pid = child(method, folder, resume)
    code = ended(pid, PATIENCE)
    if code is None:
        os.kill(pid, signal.SIGKILL)
        ended(pid, PATIENCE)
        return "stuck", time.monotonic() - started
    error = folder / "error.txt"
    said = error.read_text().strip().splitlines()[-1] if error.exists() else f"exit code {code}"
    return "" if code == 0 else said, time.monotonic() - started


def round_of(number: int, seed: int, named: tuple[str, Any], whole: tuple[Path, float], lost: Path) -> dict[str, Any]:
    """Run one round: kills, resumes, and a comparison of the two posteriors."""
    rng, (expected, seconds), (name, method) = random.Random(f"{seed}/{number}"), whole, named
    struck: Counter[str] = Counter()
    late, problem = 0, ""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "run"
        for attempt in range(rng.choice(KILLS)):
            kind, moment = rng.choice(SIGNALS), rng.uniform(0, 1.05) * seconds
            pid = child(method, folder, attempt > 0)
            code = ended(pid, moment)
            if code is None:
                os.kill(pid, kind)
                code = ended(pid, PATIENCE)
            if code is None:
                os.kill(pid, signal.SIGKILL)
                ended(pid, PATIENCE)
                problem = f"stuck after {kind.name}"
                break
            if code not in (0, INTERRUPTED, -kind):
                error = folder / "error.txt"
                problem = error.read_text().strip().splitlines()[-1] if error.exists() else f"exit code {code}"
                break
            struck[kind.name] += code != 0
            late += code == 0  # it had ended before it could be killed
        problem = problem or finish(method, folder, True)[0]
        if not problem and (folder / "posterior").read_bytes() != expected.read_bytes():
            problem = "another posterior"
        if problem:
            shutil.copytree(folder, lost.with_name(f"{lost.stem}-lost-{seed}-{number}"), dirs_exist_ok=True)
    return {"round": number, "seed": seed, "name": name, "kills": dict(+struck), "late": late, "lost": problem}


def rows(path: Path, seed: int) -> list[dict[str, Any]]:
    """Read the finished rounds of a seed; a line that was cut short is a round that did not finish."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in found if row.get("seed") == seed]


def soak(kills: int, seed: int, only: str, path: Path) -> list[dict[str, Any]]:
    """Run rounds until so many kills are done, counting those of earlier calls."""
    methods = {name: method for name, method in variants().items() if only in name}
    known = rows(path, seed)
    count, done = sum(sum(row["kills"].values()) for row in known), {row["round"] for row in known}
    with tempfile.TemporaryDirectory() as root:
        wholes: dict[str, tuple[Path, float]] = {}
        for number in numbers(done):
            if count >= kills:
                break
            name = list(methods)[number % len(methods)]
            if name not in wholes:
                folder = Path(root) / str(len(wholes))
                problem, seconds = finish(methods[name], folder, False)
                if problem:
                    sys.exit(f"{name} does not run even when it is left alone: {problem}")
                wholes[name] = folder / "posterior", seconds
            row = round_of(number, seed, (name, methods[name]), wholes[name], path)
            append_text(path, json.dumps(row) + "\n")
            known.append(row)
            count += sum(row["kills"].values())
            print(
                f"{count:5,} kills  {name}{'  LOST: ' + row['lost'] if row['lost'] else ''}",
                file=sys.stderr,
                flush=True,
            )
    return known


def numbers(done: set[int]) -> Iterator[int]:
    number = 0
    while True:
        if number not in done:
            yield number
        number += 1


def page(known: list[dict[str, Any]], seed: int) -> str:
    """Return the table of what was killed and what was lost."""
    names = list(dict.fromkeys(row["name"] for row in known))
    total = sum(sum(row["kills"].values()) for row in known)
    lost = [row for row in known if row["lost"]]
    lines = [
        "# Soak: runs that are killed",
        "",
        "Written by `python benchmarks/soak.py`; do not edit. Small runs of every method are killed at random moments and",
        "resumed; the posterior file that comes out must be that of a run left alone, byte for byte.",
        "",
        f"{total:,} kills in {len(known):,} runs, seed {seed}: **{len(lost)} lost**. posterity {posterity.__version__}, torch "
        f"{torch.__version__}, Python {platform.python_version()}, {platform.system()}.",
        "",
        f"| run | runs | {' | '.join(s.name for s in SIGNALS)} | lost |",
        f"|---|---:|{'---:|' * len(SIGNALS)}---:|",
    ]
    for name in names:
        own = [row for row in known if row["name"] == name]
        struck = [sum(row["kills"].get(s.name, 0) for row in own) for s in SIGNALS]
        lines.append(f"| {name} | {len(own)} | {' | '.join(map(str, struck))} | {sum(bool(r['lost']) for r in own)} |")
    lines += ["", *(f"- round {row['round']}, {row['name']}: {row['lost']}" for row in lost)]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=500, help="how many, in all [500]")
    parser.add_argument("--seed", type=int, default=0, help="of methods' order, moments and signals [0]")
    parser.add_argument("--only", default="", help="methods whose name holds this")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"where finished rounds are kept [{RESULTS}]")
    chosen = parser.parse_args()
    if not hasattr(os, "fork"):
        sys.exit("This needs a system that forks.")
    known = soak(chosen.kills, chosen.seed, chosen.only, chosen.out)
    text = page(known, chosen.seed)
    replace_text(chosen.out.with_suffix(".md"), text)
    print(text)
    sys.exit(any(row["lost"] for row in known))


if __name__ == "__main__":
    main()
