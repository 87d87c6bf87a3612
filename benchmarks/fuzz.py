"""Damaged and hostile files, by the million: each is refused with one clear error, or read as what it was.

Every kind of file that the library reads is changed at random, by bytes and by its structure, and read in this process under an
alarm of 5 seconds and a bound on memory. Input number n of a target depends on the seed, the target and n alone; where a run
stopped, the same command goes on. The first input of each place that fails is kept, to be shown again:

    python benchmarks/fuzz.py --inputs 1000000 --seed 0 --out docs/results/fuzz.md
    python benchmarks/fuzz.py --inputs 20000 --target png,jpeg
    python benchmarks/fuzz.py --again runs/fuzz-0/found/csv-traceback-0.bin
"""

import argparse
import json
import mmap
import os
import resource
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

KINDS = ("refused", "as it was", "accepted", "other words")
LEGEND = (
    "Refused: by one error of the library. As it was: read, with equal content. Accepted: read as something else, where the "
    "file carries no checksum, or a mutator had renewed it. Other words: the numbers are equal, and a setting beside them is "
    "another. A failure: a traceback, 5 seconds of the processor, 1 GiB, an error of 4,000 characters, the end of the process, "
    "or other content in a file that carries a checksum."
)
KEPT, EVERY, STALLED = 60, 500, 60.0  # places per target, inputs between two states, seconds without an input
ROOM = 2**30  # bytes of address space that a reader may take


def worker(folder: Path, seed: int, name: str, total: int) -> None:
    """Go through the inputs of one target that are left, and say in the file `at` which one is at hand."""
    from fuzzing import targets, trial

    mark = mmap.mmap(os.open(folder / "at", os.O_RDWR), 64)
    state = read_state(folder, name)
    target = targets.MAKERS[name]()
    wanted = trial.originals(target)
    limit_memory()
    for number in range(state["done"], total):
        mark[:] = f"{name} {number}".encode().ljust(64)
        made = trial.case(target, Random(f"{seed}/{name}/{number}"))
        died = state["died"].get(str(number))
        start = time.process_time()
        outcome = trial.Outcome("died", died) if died else trial.attempt(target, made, wanted)
        state["seconds"] += time.process_time() - start
        state["slowest"] = max(state["slowest"], time.process_time() - start)
        if trial.peak() > max(trial.MEMORY, 1.1 * state["peak"]):
            outcome = trial.Outcome("memory", f"after {outcome.kind} {outcome.place}")
        state["peak"] = max(state["peak"], trial.peak())
        count(state, folder, name, outcome, made.content)
        if (number + 1) % EVERY == 0 or number + 1 == total:
            state["done"] = number + 1
            write_state(folder, name, state)


def count(state: dict, folder: Path, name: str, outcome: object, content: bytes) -> None:
    """Count an outcome, and keep the first input of each place that fails."""
    from fuzzing.trial import FAILURES

    counts = state["counts"]
    counts[outcome.kind] = counts.get(outcome.kind, 0) + 1
    if outcome.kind not in (*FAILURES, "other words"):
        return
    place = f"{outcome.kind}: {outcome.place}"
    found = state["places"]
    if place not in found and len(found) < KEPT:
        file = folder / "found" / f"{name}-{outcome.kind.replace(' ', '-')}-{len(found)}.bin"
        file.write_bytes(content)
        found[place] = {"count": 0, "file": file.name}
    if place in found:
        found[place]["count"] += 1


def limit_memory() -> None:
    """Have an allocation fail that would take this process more than `ROOM` beyond what it has."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))


def read_state(folder: Path, name: str) -> dict:
    file = folder / f"{name}.json"
    empty = {"done": 0, "counts": {}, "places": {}, "died": {}, "slowest": 0.0, "peak": 0, "seconds": 0.0}
    return json.loads(file.read_text()) if file.exists() else empty


def write_state(folder: Path, name: str, state: dict) -> None:
    part = folder / f"{name}.json.new"
    part.write_text(json.dumps(state, indent=1))
    part.replace(folder / f"{name}.json")


def supervise(folder: Path, seed: int, name: str, total: int) -> None:
    """Run workers until a target is done: one that dies, or that no alarm can reach, is a failure of the input at hand."""
    (folder / "found").mkdir(parents=True, exist_ok=True)
    at = folder / "at"
    command = [sys.executable, __file__, "--worker", name, "--folder", str(folder), "--seed", str(seed)]
    command += ["--inputs", str(total)]
    while read_state(folder, name)["done"] < total:
        at.write_bytes(b" " * 64)
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        stalled = _wait(process, at)
        if process.returncode == 0:
            continue
        number = at.read_bytes().decode().strip().rpartition(" ")[2]
        if not number:
            raise SystemExit("The worker ended before its first input; what it said is above.")
        state = read_state(folder, name)
        state["died"][number] = "no alarm reached it" if stalled else f"exit status {process.returncode}"
        write_state(folder, name, state)
        print(f"{name} {number}: {state['died'][number]}", file=sys.stderr, flush=True)


def _wait(process: subprocess.Popen, at: Path) -> bool:
    """Wait for a worker; end it where it stands at one input for too long, and say so."""
    last, since, told = b"", time.monotonic(), time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(0.2)
            now = at.read_bytes()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > STALLED and now.strip():
                process.kill()
                process.wait()
                return True
            if time.monotonic() - told > 20:
                told = time.monotonic()
                print(now.decode().strip(), file=sys.stderr, flush=True)
    except BaseException:
        process.kill()
        raise
    return False


def table(result: dict) -> str:
    failures = result["failures"]
    head = ["target", "inputs", *KINDS, "failures", "a second", "slowest", "peak"]
    lines = [
        "# Damaged and hostile files",
        "",
        f"`python benchmarks/fuzz.py --inputs {result['asked']} --seed {result['seed']}`: {result['inputs']:,} inputs, "
        f"{sum(failures.values()):,} failures. {result['machine']}; commit {result['commit']}; {result['date']}.",
        "",
        LEGEND,
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for name, state in result["targets"].items():
        counts = state["counts"]
        cells = [f"{sum(counts.values()):,}", *(f"{counts.get(kind, 0):,}" for kind in KINDS)]
        cells += [f"{failures[name]:,}", f"{sum(counts.values()) / state['seconds']:,.0f}"]
        cells += [f"{1000 * state['slowest']:,.0f} ms", f"{state['peak'] / 2**20:,.0f} MiB"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Where", ""] if any(s["places"] for s in result["targets"].values()) else []
    for name, state in result["targets"].items():
        for place, found in sorted(state["places"].items(), key=lambda item: -item[1]["count"]):
            lines.append(f"- {name}: {place}: {found['count']:,} (`{found['file']}`)")
    return "\n".join(lines) + "\n"


def result_of(folder: Path, asked: int, seed: int, names: list[str]) -> dict:
    from fuzzing.trial import FAILURES

    from posterity.bench.machine import provenance

    states = {name: read_state(folder, name) for name in names}
    return {
        **provenance(),
        "asked": asked,
        "seed": seed,
        "inputs": sum(sum(state["counts"].values()) for state in states.values()),
        "failures": {n: sum(Counter(s["counts"])[kind] for kind in FAILURES) for n, s in states.items()},
        "targets": states,
    }


def again(file: Path) -> None:
    """Read one kept input again, and print what the library says."""
    from fuzzing import targets

    try:
        print(targets.MAKERS[file.name.partition("-")[0]]().read(file.read_bytes()))
    except Exception:
        traceback.print_exc()


def main() -> None:
    from fuzzing.targets import MAKERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default=",".join(MAKERS), help="names with commas between them")
    parser.add_argument("--folder", type=Path, help="of the state and of what was found [runs/fuzz-SEED]")
    parser.add_argument("--out", type=Path, help="a .md file; its .json is written beside it")
    parser.add_argument("--again", type=Path, metavar="FILE", help="read a kept input again")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.again:
        return again(options.again)
    names = options.target.split(",")
    if strange := set(names) - set(MAKERS):
        parser.error(f"no target {', '.join(sorted(strange))}; there are {', '.join(MAKERS)}")
    folder = options.folder or Path("runs") / f"fuzz-{options.seed}"
    if options.worker:
        return worker(folder, options.seed, options.worker, options.inputs)
    for name in names:
        supervise(folder, options.seed, name, -(-options.inputs // len(names)))
    result = result_of(folder, options.inputs, options.seed, names)
    print(table(result))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(table(result))
        options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    if sum(result["failures"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
