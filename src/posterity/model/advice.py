"""What was probably meant by targets that do not fit, and the line to write: one table for each family of likelihoods.

A row is a condition on the targets as they are held and a sentence; the first that holds is said.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from posterity.model.held import Held
from posterity.types import IGNORED as IGNORED

VOID = 255  # what label maps have where nothing is labelled

Row: TypeAlias = tuple[Callable[[Held], bool], str]
MISSING = "Some are NaN or infinite: leave them out, keep = {finite}, then inputs[keep], targets[keep]."
UNKNOWN = " A class label that is not known is −100: targets.nan_to_num(-100, -100, -100).long()."
FLATTENED = "likelihood=Gaussian(), fit(nn.Sequential(network, nn.Flatten()), (inputs, targets.flatten(1).float()), …)."

CLASSES: Sequence[Row] = (
    (lambda t: t.missing and t.width == 1, MISSING + " Then real values are of likelihood=Gaussian()."),
    (lambda t: t.missing, MISSING + UNKNOWN),
    (lambda t: t.sited and t.one_hot is not None, "One-hot label maps: targets.argmax({one_hot})."),
    (
        lambda t: t.one_hot is not None and t.width == 1 and t.columns == 2,
        "One-hot rows of two classes: likelihood=Bernoulli(), targets.argmax(-1).",
    ),
    (lambda t: t.one_hot is not None and t.width >= t.columns, "One-hot rows: targets.argmax(-1)."),
    (lambda t: t.one_hot is not None, "One-hot rows: targets.argmax(-1), and {columns} outputs of the network."),
    (
        lambda t: t.two and t.sited,
        "One output and two labels at each place: likelihood=Bernoulli('{axes}'), "
        "(targets == {high}).float(){kept}{unsqueezed}.",
    ),
    (
        lambda t: t.width == 1 and t.single and t.only(0, 1),
        "One output and labels 0 and 1: likelihood=Bernoulli(), targets{squeezed}.float().",
    ),
    (
        lambda t: t.two and t.single,
        "One output and two labels: likelihood=Bernoulli(), (targets{squeezed} == {high}).float(){kept}.",
    ),
    (
        lambda t: t.sums_to_one and t.like_outputs,
        "Rows of probabilities (soft labels): floats of the outputs' shape, with the classes on the same axis.",
    ),
    (
        lambda t: t.fractions and t.single and t.width == 2,
        "Probabilities (soft labels) of the second class: targets = targets{squeezed}, then "
        "torch.stack([1 - targets, targets], -1). Real values: likelihood=Gaussian(), and one output.",
    ),
    (lambda t: t.real and not t.whole and t.sited, "Real values at each place: " + FLATTENED),
    (
        lambda t: t.real and not t.whole,
        "Real values: likelihood=Gaussian(){vector}, and one output of the network for each value.",
    ),
    (
        lambda t: t.like_outputs and t.only(0, 1),
        "Several labels for each example: likelihood=Bernoulli(), of targets 0 and 1 for each output.",
    ),
    (
        lambda t: not t.sited and t.columns > 1 and t.only(0, 1),
        "Several labels for each example: likelihood=Bernoulli(), and {columns} outputs of the network.",
    ),
    (lambda t: t.column and t.width > 1 and t.named(0), "A column: targets.squeeze(-1).long()."),
    (
        lambda t: not t.sited and t.columns > 1 and t.targets.dim() == 2 and t.named(0),
        "Several labels for each example: likelihood=Bernoulli(), "
        "torch.nn.functional.one_hot(targets.long(), {width}).amax(1).float().",
    ),
    (
        lambda t: t.sited and t.targets.dim() == len(t.outputs) and t.columns == 1,
        "An axis too many: targets.squeeze(1).long().",
    ),
    (
        lambda t: t.sited and t.targets.dim() == len(t.outputs) and t.targets.shape[-1] == 1,
        "An axis too many: targets.squeeze(-1).long().",
    ),
    (lambda t: t.only(-1, 1), "Labels −1 and 1: write (targets{squeezed} > 0).long(){kept}."),
    (lambda t: t.only(0, VOID), "Values 0 and 255: write (targets{squeezed} > 0).long(){kept}."),
    (
        lambda t: t.high == VOID and t.width <= VOID,
        "255 marks what is not labelled (void) in label maps: targets.long().masked_fill(targets == 255, -100).",
    ),
    (
        lambda t: t.real and t.named(0),
        "Class labels held as floats: targets.long(). Real values: likelihood=Gaussian().",
    ),
    (lambda t: t.low == 1 and t.high == t.width, "Labels from 1 on: {minus}."),
    (
        lambda t: t.named(-1) and t.low == -1 and len(t.values) == t.width,
        "Labels from −1 on: {plus}. But if −1 is a label that is not known, it is −100 here: "
        "targets.masked_fill(targets == -1, -100).",
    ),
    (
        lambda t: t.low == -1 and t.high < t.width,
        "If −1 is a label that is not known, it is −100 here: targets.masked_fill(targets == -1, -100).",
    ),
    (
        lambda t: t.real or len(t.values) > max(20, 2 * t.width),
        "So many different numbers are values rather than classes: likelihood=Gaussian(), targets.float(), and one output.",
    ),
    (
        lambda t: t.low < 0 or t.high + 1 > 2 * len(t.values) + 2,
        "Number the classes from 0: names, targets = targets.unique(return_inverse=True), and as many outputs as names.",
    ),
    (lambda t: True, "Give the network {classes} outputs, or number the classes from 0."),
)

BINARY: Sequence[Row] = (
    (lambda t: t.missing, MISSING + " A label that is not known is −100: targets.nan_to_num(-100, -100, -100)."),
    (lambda t: t.column and t.width == 1 and t.only(0, 1), "A column: targets.squeeze(-1)."),
    (
        lambda t: not t.sited and t.one_hot is not None and t.width == 1 and t.columns == 2,
        "One-hot rows of two classes: targets.argmax(-1).",
    ),
    (
        lambda t: not t.sited and t.one_hot is not None and t.columns > 2,
        "One-hot rows: likelihood=Categorical(), targets.argmax(-1), and {columns} outputs of the network.",
    ),
    (
        lambda t: t.single and t.width > 1 and t.named(0),
        "One label for each example and {width} outputs: likelihood=Categorical(), targets{squeezed}.long().",
    ),
    (
        lambda t: (
            t.sited and t.targets.shape == (*t.outputs[:1], *t.outputs[2:]) and t.outputs[1] == 1 and t.only(0, 1)
        ),
        "Masks need the axis of the outputs: targets.unsqueeze(1).",
    ),
    (
        lambda t: t.sited and t.targets.shape == t.outputs[:-1] and t.width == 1 and t.only(0, 1),
        "Labels need the axis of the outputs: targets.unsqueeze(-1).",
    ),
    (lambda t: t.only(-1, 1), "Labels −1 and 1: write (targets{squeezed} > 0).float(){kept}."),
    (lambda t: t.only(1, 2), "Labels 1 and 2: {minus}."),
    (lambda t: t.only(0, VOID), "Values 0 and 255: write (targets{squeezed} > 0).float(){kept}."),
    (
        lambda t: t.only(0, 1, VOID),
        "255 marks what is not labelled (void): targets.float().masked_fill(targets == 255, -100).",
    ),
    (
        lambda t: t.only(-1, 0, 1),
        "If −1 is a label that is not known, it is −100 here: targets.masked_fill(targets == -1, -100).",
    ),
    (
        lambda t: t.fractions,
        "Probabilities (soft labels): write (targets > 0.5).float(), or take Categorical() of two outputs.",
    ),
    (
        lambda t: t.whole and t.low >= 0 and t.high > 1,
        "More than two classes: likelihood=Categorical(), targets{squeezed}.long(), and {classes} outputs of the network.",
    ),
    (lambda t: not t.whole, "Real values: likelihood=Gaussian()."),
    (
        lambda t: not t.sited and t.columns > 1,
        "One output for each label: give the network {columns}, it has {width}.",
    ),
    (lambda t: True, "One label for each output: targets of the outputs' shape; (B,) for outputs (B, 1)."),
)

VALUES: Sequence[Row] = (
    (
        lambda t: t.targets.is_complex(),
        "A complex number is two values: torch.view_as_real(targets).flatten(1), and outputs for both.",
    ),
    (lambda t: t.missing, MISSING),
    (lambda t: t.column and t.width == 1, "A column: targets.squeeze(-1).float()."),
    (
        lambda t: t.targets.dim() == 1 and t.width > 1 and t.named(0),
        "Labels of {width} classes: likelihood=Categorical(), targets.long(). One value for each example: targets.float(), and "
        "{needed} of the network.",
    ),
    (
        lambda t: t.single and t.width > 1,
        "One value for each example needs {needed} of the network, which has {given}.",
    ),
    (
        lambda t: t.targets.dim() > 2 and t.targets[0].numel() == t.width,
        "An axis too many: targets.flatten(1){squeezed_all}.float().",
    ),
    (
        lambda t: not t.real and t.width == 1 and t.single and t.only(0, 1),
        "Labels 0 and 1: likelihood=Bernoulli(). As values: targets.float().",
    ),
    (
        lambda t: t.targets.dim() == 2 and t.columns != t.width,
        "Give the network {needed}, {each} for each column of targets.",
    ),
    (
        lambda t: not t.real,
        "Counts: likelihood=NegativeBinomial() or Poisson() of posterity.likelihoods. Other whole numbers: targets.float(). "
        "Class labels: likelihood=Categorical().",
    ),
    (lambda t: True, "Targets of the outputs' shape; (B,) for outputs (B, 1)."),
)

SITES: Sequence[Row] = (  # outputs as the network returns them, (B, D, *sites)
    (
        lambda t: t.targets.dim() == 1 and set(t.outputs[2:]) == {1},
        "Flatten them: nn.Sequential(network, nn.Flatten()).",
    ),
    (
        lambda t: t.targets.dim() == 1,
        "One label for each example needs one row of logits: pool the sites in the network, as nn.AdaptiveAvgPool2d(1) and "
        "nn.Flatten() do, or outputs.mean(1) of tokens.",
    ),
    (lambda t: t.like_outputs and t.missing, MISSING),
    (lambda t: t.like_outputs and t.real and not t.whole, "Real values at each place: " + FLATTENED),
    (lambda t: t.one_hot is not None, "One-hot label maps: targets.argmax({one_hot})."),
    (lambda t: t.like_outputs and t.only(0, 1), "Masks: likelihood=Bernoulli('{axes}'), targets of 0 and 1."),
    (
        lambda t: t.like_outputs and t.only(0, VOID),
        "Masks: likelihood=Bernoulli('{axes}'), (targets > 0).float(){kept}.",
    ),
    (
        lambda t: t.targets.shape == (*t.outputs[:1], 1, *t.outputs[2:]),
        "An axis too many: targets.squeeze(1).long().",
    ),
    (lambda t: t.targets.shape == (*t.outputs[:-1], 1), "An axis too many: targets.squeeze(-1).long()."),
    (lambda t: t.like_outputs, "Values at each place: " + FLATTENED),
    (lambda t: t.sites is not None, "A label map has the sites of the outputs: targets.unflatten(1, {sites})."),
    (
        lambda t: t.targets.dim() == len(t.outputs) - 1,
        "A label map has the sites of the outputs; these have shape {shape}: resize them in the network, "
        "torch.nn.functional.interpolate(outputs, targets.shape[1:]).",
    ),
    (lambda t: True, "Targets have shape {shape}; a label map has the shape of the outputs without their classes."),
)


def advice(table: Sequence[Row], targets: Tensor, outputs: torch.Size, axes: str | None = None, each: int = 1) -> str:
    """Say what was probably meant by targets, given the shape of the outputs with classes or values last.

    Args:
        table: of the family of likelihoods.
        targets, outputs: see `Held`.
        axes: those of the network's outputs, where they are named.
        each: how many outputs of the network each value has; `outputs` counts values.

    >>> advice(CLASSES, torch.tensor([1, 2, 3]), torch.Size([3, 3]))
    'Labels from 1 on: targets - 1.'
    """
    held = Held(targets, outputs, axes)
    if not len(held.values):
        return f"All are {IGNORED}, not known."
    text = next(text for holds, text in table if holds(held))
    flat = targets.dim() == 1
    squeezed = ".squeeze(-1)" if held.column else ""
    kept = f".masked_fill(targets{squeezed} == {IGNORED}, {IGNORED})" if bool((targets == IGNORED).any()) else ""
    needed = each * held.columns
    return text.format(
        width=held.width,
        columns=held.columns,
        classes=0 if held.missing else max(held.high + 1, 2),
        high="" if held.missing else held.high,
        squeezed=squeezed,
        kept=kept,
        minus=f"(targets{squeezed} - 1){kept}" if kept else f"targets{squeezed} - 1",
        plus=f"(targets{squeezed} + 1){kept}" if kept else f"targets{squeezed} + 1",
        squeezed_all=".squeeze(-1)" if held.width == 1 else "",
        unsqueezed="" if targets.dim() == len(outputs) else f".unsqueeze({held.class_axis})",
        vector=f", targets{squeezed}" if squeezed else "",
        axes=axes or {3: "BCT", 4: "BCHW", 5: "BCDHW"}.get(len(outputs), ""),
        finite="targets.isfinite()" if flat else "targets.isfinite().flatten(1).all(1)",
        shape=tuple(targets.shape),
        one_hot=held.one_hot,
        sites=held.sites,
        each={1: "one", 2: "two"}.get(each, each),
        needed="one output" if needed == 1 else f"{needed} outputs",
        given=each * held.width,
    )
