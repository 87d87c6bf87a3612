"""What a run on a table infers with where no method is named: the choice of the estimators, written into its configuration."""

from dataclasses import replace
from math import ceil

from posterity.cli.config import ModelConfig, RunConfig
from posterity.data import Dataset
from posterity.errors import InvalidInput
from posterity.model.likelihoods import HeteroscedasticGaussian
from posterity.usual import BATCH, for_classes, for_numbers

DRAWS = 128  # functions of a prediction: small networks are cheap to evaluate


def usual(config: RunConfig, dataset: Dataset) -> tuple[RunConfig, Dataset]:
    """Choose method, widths, prior and noise model for a table, as far as they were left open; a note says why.

    Images have their own defaults, and so has what starts from weights or is random in part.
    """
    named = {"method", "where"} & config.model_fields_set
    if named or config.model.weights is not None or not dataset.features or not len(dataset.train_inputs):
        _refuse_minutes(config)
        return config, dataset
    rows = ceil((1 - config.data.validation) * len(dataset.train_inputs))
    batch = config.data.batch_size or min(BATCH, rows)
    if dataset.classes:
        _refuse_minutes(config)
        chosen = for_classes(rows, ceil(rows / batch))
    else:
        chosen = for_numbers(rows, ceil(rows / batch), config.minutes or 1.0)
    data = config.data.model_copy(update={"batch_size": batch})
    update: dict[str, object] = {"method": chosen.method, "data": data, "minutes": None}
    if "predictive_draws" not in config.model_fields_set:
        update["predictive_draws"] = DRAWS
    if "prior" not in config.model_fields_set:
        update["prior"] = chosen.prior
    if config.model.name is None:
        name = "mlp:" + "-".join(map(str, chosen.hidden))
        options = {"shortcut": True} if chosen.shortcut else {}
        update["model"] = ModelConfig(name=name, **{**options, **config.model.options})
    if config.likelihood is None and not dataset.classes:
        update["likelihood"] = HeteroscedasticGaussian()
    noted = (*dataset.notes, f"{chosen.why} Choose another with --method.")
    return config.model_copy(update=update), replace(dataset, notes=noted)


def _refuse_minutes(config: RunConfig) -> None:
    if config.minutes is not None:
        raise InvalidInput(
            f"--minutes {config.minutes:g} is for tables of numbers whose method is left open; any other fit has its own "
            "measure, as --epochs and --method.draws."
        )
