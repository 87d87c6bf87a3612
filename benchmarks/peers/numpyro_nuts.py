"""NumPyro's NUTS on the targets that ours is compared on; for an environment of its own, which needs no posterity.

    python benchmarks/peers/numpyro_nuts.py network settings.npz draws.npz

`settings.npz` holds warmup, draws, chains, depth, accept and seed; the network's x, y, probes and noise; `rehearse`, true
unless it says otherwise. Once warmed up (and, to rehearse, compiled for its draws, which lengthens the warm-up) it writes a
line of JSON. For each line that it reads it makes `draws` draws of each chain and writes another, with the seconds and the
gradients they took. At the end of its input it saves the draws, (chains, draws, values).
"""

import json
import os
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def network(x, y, noise):
    def normal(name, *shape):
        return numpyro.sample(name, dist.Normal(0, 0.3).expand(shape).to_event(len(shape)))

    hidden = jnp.tanh(x @ normal("w1", 50, 13).T + normal("b1", 50))
    numpyro.sample("y", dist.Normal(hidden @ normal("w2", 50) + normal("b2", 1)[0], noise), obs=y)


def schools():
    mean = numpyro.sample("mean", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    eta = numpyro.sample("eta", dist.Normal(0, 1).expand([8]).to_event(1))
    numpyro.sample("effects", dist.Normal(mean + tau * eta, ERRORS), obs=EFFECTS)


def funnel():
    v = numpyro.sample("v", dist.Normal(0, 1))
    numpyro.sample("x", dist.Normal(0, jnp.exp(v / 2)).expand([5]).to_event(1))


def banana():
    a = numpyro.sample("a", dist.Normal(0, 1))
    numpyro.sample("b", dist.Normal(0.5 * a**2, 0.5))


def values(target, samples, settings):
    """What is compared, (chains, draws, K): the network's outputs at the probes, or the coordinates."""
    if target == "network":
        hidden = np.tanh(np.einsum("kd,csjd->cskj", settings["probes"], samples["w1"]) + samples["b1"][:, :, None])
        return np.einsum("cskj,csj->csk", hidden, samples["w2"]) + samples["b2"]
    if target == "schools":
        samples["tau"] = np.log(samples["tau"])
    names = {"schools": ("mean", "tau", "eta"), "funnel": ("v", "x"), "banana": ("a", "b")}[target]
    return np.concatenate([s if (s := samples[n]).ndim == 3 else s[..., None] for n in names], -1)


def main(target: str, settings_path: str, out: str) -> None:
    settings = dict(np.load(settings_path))
    number = {k: int(settings[k]) for k in ("warmup", "draws", "chains", "depth", "seed")}
    model = {"network": network, "schools": schools, "funnel": funnel, "banana": banana}[target]
    given = [jnp.asarray(settings[k]) for k in ("x", "y", "noise")] if target == "network" else []
    kernel = NUTS(model, target_accept_prob=float(settings["accept"]), max_tree_depth=number["depth"])
    mcmc = MCMC(
        kernel,
        num_warmup=number["warmup"],
        num_samples=number["draws"],
        num_chains=number["chains"],
        chain_method="sequential",
        progress_bar=False,
    )
    started = time.perf_counter()
    mcmc.warmup(jax.random.PRNGKey(number["seed"]), *given)
    kept = []

    def run():
        began, processor = time.perf_counter(), time.process_time()
        mcmc.run(mcmc.post_warmup_state.rng_key, *given, extra_fields=("num_steps", "diverging"))
        samples = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
        mcmc.post_warmup_state = mcmc.last_state
        extra = mcmc.get_extra_fields()
        row = {
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - processor,
            "gradients": int(extra["num_steps"].sum()),
            "divergences": int(extra["diverging"].sum()),
        }
        return samples, row

    if settings.get("rehearse", True):
        run()
    print(json.dumps({"warmup_seconds": time.perf_counter() - started, "numpyro": numpyro.__version__}), flush=True)
    for _ in sys.stdin:
        samples, row = run()
        kept.append(values(target, samples, settings))
        print(json.dumps(row), flush=True)
    np.savez(out, values=np.concatenate(kept, 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
