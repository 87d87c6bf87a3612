"""What others have printed of the same data sets and networks, as they print it: no strict comparison, a place in the field.

UCI, RMSE and log-likelihood over all splits: the tables of Lakshminarayanan et al. 2017 and of the code that Gal published
in 2018 with Gal & Ghahramani 2016 (their ± are standard errors, those of the deep ensemble standard deviations); the README
of uncertainty-baselines (Nado et al. 2021). Images, LeNet-5: the same README's rows.
"""

from posterity.bench.study import Published

_SOURCES = {  # RMSE, log-likelihood, as printed
    "PBP (Hernández-Lobato & Adams 2015)": (
        ("3.01 ± 0.18", "−2.57 ± 0.09"),
        ("5.67 ± 0.09", "−3.16 ± 0.02"),
        ("0.64 ± 0.01", "−0.97 ± 0.01"),
        ("4.12 ± 0.03", "−2.84 ± 0.01"),
    ),
    "MC dropout (Gal & Ghahramani 2016; code of 2018)": (
        ("2.90 ± 0.18", "−2.40 ± 0.04"),
        ("4.82 ± 0.16", "−2.93 ± 0.02"),
        ("0.62 ± 0.01", "−0.93 ± 0.01"),
        ("4.01 ± 0.04", "−2.80 ± 0.01"),
    ),
    "deep ensemble of 5 (Lakshminarayanan et al. 2017)": (
        ("3.28 ± 1.00", "−2.41 ± 0.25"),
        ("6.03 ± 0.58", "−3.06 ± 0.18"),
        ("0.64 ± 0.04", "−0.94 ± 0.12"),
        ("4.11 ± 0.17", "−2.79 ± 0.04"),
    ),
    "mean-field VI (uncertainty-baselines)": (("", "−3.12"), ("", "−3.22"), ("", "−1.00"), ("", "−2.85")),
    "VMG (Louizos & Welling 2016)": (("", "−2.46"), ("", "−3.01"), ("", "−0.95"), ("", "−2.82")),
}
UCI = {
    name: [Published(title, {"rmse": rows[index][0], "nll": rows[index][1]}) for title, rows in _SOURCES.items()]
    for index, name in enumerate(("boston", "concrete", "wine", "power"))
}
_BASELINES = "uncertainty-baselines, LeNet-5"
IMAGES = {
    "mnist": [
        Published(f"{_BASELINES}: deterministic", {"accuracy": "99.1", "nll": ".037"}),
        Published(f"{_BASELINES}: variational inference", {"accuracy": "98.5", "nll": ".048", "ece": "1.0"}),
        Published(f"{_BASELINES}: refined VI", {"accuracy": "99.0", "nll": ".034", "ece": "1.0"}),
        Published(f"{_BASELINES}: ensemble of 10", {"accuracy": "99.4", "nll": ".016", "ece": "0.5"}),
    ],
    "fashion-mnist": [
        Published(f"{_BASELINES}: deterministic", {"accuracy": "91.0", "nll": ".321"}),
        Published(f"{_BASELINES}: variational inference", {"accuracy": "89.5", "nll": ".292", "ece": "1.1"}),
        Published(f"{_BASELINES}: refined VI", {"accuracy": "90.6", "nll": ".259", "ece": "1.1"}),
        Published(f"{_BASELINES}: ensemble of 10", {"accuracy": "93.2", "nll": ".200", "ece": "1.0"}),
    ],
}
