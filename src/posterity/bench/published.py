"""What others have printed of the same data sets and networks, as they print it: no strict comparison, a place in the field."""

from posterity.bench.study import Published

UCI_SOURCES = (
    "PBP: Hernández-Lobato & Adams 2015; MC dropout: the code of 2018 that goes with Gal & Ghahramani 2016, tuned on "
    "validation rows; ensemble of 5: Lakshminarayanan et al. 2017 (whose ± are standard deviations); mean-field VI, and VMG "
    "of Louizos & Welling 2016: the README of uncertainty-baselines (Nado et al. 2021)"
)
IMAGES_SOURCES = "LeNet-5 in the README of uncertainty-baselines (Nado et al. 2021)"
AIRFOIL_SOURCES = "airfoil: the table that comes with the package bde (sklearn-contrib-bde 1.0.2), means of five seeds"
CIFAR_SOURCES = (
    "Shridhar, Laumann & Liwicki 2019 and the thesis behind it (Shridhar 2018), best of 100 epochs, whole per cents; their "
    "frequentist AlexNet is another network, with dropout and twice the last filters; 3Conv3FC: the logs of 2018 in the code "
    "that goes with them, PyTorch-BayesianCNN, whose own log of LeNet by VI on CIFAR-10 says 65"
)
_ROWS = {  # RMSE, log-likelihood, as printed
    "PBP, 2015": (
        ("3.01 ± 0.18", "−2.57 ± 0.09"),
        ("5.67 ± 0.09", "−3.16 ± 0.02"),
        ("0.64 ± 0.01", "−0.97 ± 0.01"),
        ("4.12 ± 0.03", "−2.84 ± 0.01"),
    ),
    "MC dropout, 2018": (
        ("2.90 ± 0.18", "−2.40 ± 0.04"),
        ("4.82 ± 0.16", "−2.93 ± 0.02"),
        ("0.62 ± 0.01", "−0.93 ± 0.01"),
        ("4.01 ± 0.04", "−2.80 ± 0.01"),
    ),
    "ensemble of 5, 2017": (
        ("3.28 ± 1.00", "−2.41 ± 0.25"),
        ("6.03 ± 0.58", "−3.06 ± 0.18"),
        ("0.64 ± 0.04", "−0.94 ± 0.12"),
        ("4.11 ± 0.17", "−2.79 ± 0.04"),
    ),
    "mean-field VI, 2021": (("", "−3.12"), ("", "−3.22"), ("", "−1.00"), ("", "−2.85")),
    "VMG, 2016": (("", "−2.46"), ("", "−3.01"), ("", "−0.95"), ("", "−2.82")),
}
UCI = {
    name: [Published(title, {"rmse": rows[index][0], "nll": rows[index][1]}) for title, rows in _ROWS.items()]
    for index, name in enumerate(("boston", "concrete", "wine", "power"))
}
IMAGES = {
    "mnist": [
        Published("deterministic, 2021", {"accuracy": "99.1", "nll": ".037"}),
        Published("variational inference, 2021", {"accuracy": "98.5", "nll": ".048", "ece": "1.0"}),
        Published("refined VI, 2021", {"accuracy": "99.0", "nll": ".034", "ece": "1.0"}),
        Published("ensemble of 10, 2021", {"accuracy": "99.4", "nll": ".016", "ece": "0.5"}),
    ],
    "fashion-mnist": [
        Published("deterministic, 2021", {"accuracy": "91.0", "nll": ".321"}),
        Published("variational inference, 2021", {"accuracy": "89.5", "nll": ".292", "ece": "1.1"}),
        Published("refined VI, 2021", {"accuracy": "90.6", "nll": ".259", "ece": "1.1"}),
        Published("ensemble of 10, 2021", {"accuracy": "93.2", "nll": ".200", "ece": "1.0"}),
    ],
}
CIFAR = {
    name: [Published(title, {"accuracy": accuracy}) for title, accuracy in rows]
    for name, rows in {
        "cifar-10": (
            ("LeNet, VI, 2019", "69"),
            ("LeNet, frequentist, 2019", "68"),
            ("3Conv3FC, VI, 2018", "77"),
            ("3Conv3FC, frequentist, 2018", "68"),
            ("AlexNet, VI, 2019", "73"),
            ("AlexNet, frequentist, 2019", "73"),
        ),
        "cifar-100": (
            ("LeNet, VI, 2019", "31"),
            ("LeNet, frequentist, 2019", "33"),
            ("3Conv3FC, VI, 2018", "36"),
            ("3Conv3FC, frequentist, 2018", "43"),
            ("AlexNet, VI, 2019", "36"),
            ("AlexNet, frequentist, 2019", "38"),
        ),
    }.items()
}
AIRFOIL = [
    Published("bde", {"rmse": "0.1215", "nll": "−0.9126"}),
    Published("TabPFN v2", {"rmse": "0.1359", "nll": "−0.9338"}),
    Published("XGBoost", {"rmse": "0.2025", "nll": "−0.178"}),
    Published("CatBoost", {"rmse": "0.2393", "nll": "0.148"}),
    Published("deep ensemble", {"rmse": "0.365", "nll": "0.176"}),
]
