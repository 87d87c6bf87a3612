"""What two networks became, parameter by parameter. Writes docs/explain.md.

pip install 'posterity[hf]'
python examples/explain_networks.py
"""

from pathlib import Path

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import posterity
from posterity import Normal
from posterity.zoo.resnet import ResNet20

PAGE = Path(__file__).parent.parent / "docs" / "explain.md"
READING = """# Who gets what: `explain`

`posterity.explain(bnn, batch)` runs a Bayesian network once and says for each parameter whether it is random, under which
prior, its std now (the mean over the tensor), and the estimator that it really gets. `local_reparam` and `flipout` draw where
a weight meets its input; they can do so for a weight that is used once in a pass, by an operation that is linear in it
(`linear`, convolutions, `embedding`). Any other weight gets one *weight draw* for the whole pass, and the table says why: it is
used twice (a tied embedding, a layer called again), it is an argument of a *fused kernel* (recurrent layers, torch's own
attention), or there is *no rule* for the operation that comes first (`addmm`, an index, a transpose). A weight draw is
right for every operation; it only has more variance. *Deterministic* parameters are trained without a std: what `where=` did
not select, and normalisation layers unless they are selected by name. `uses` counts the torch functions that the weight is
given to in one pass. `KL` is exact where it has a closed form, else drawn. `str(...)` is the table; `.to_dict()` is for
programs; and `posterity explain mnist --model lenet --estimator flipout` shows it for what `posterity train` with the same
flags would start. Nothing is changed by looking."""


def bert() -> nn.Module:
    """A small encoder with a head for three classes, with fresh weights."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    return BertForSequenceClassification(BertConfig(vocab_size=1000, num_labels=3, **sizes))


def sections() -> list[str]:
    """The calls, and what they print."""
    torch.manual_seed(0)
    resnet = posterity.bayesianize(ResNet20(norm="frn"), prior=Normal(0, 1, fan_in=True), estimator="local_reparam")
    encoder = posterity.bayesianize(bert(), estimator="flipout")
    return [
        "## ResNet-20 with filter response normalisation",
        "```python\n"
        'bnn = bayesianize(ResNet20(norm="frn"), prior=Normal(0, 1, fan_in=True), estimator="local_reparam")\n'
        "print(explain(bnn, torch.randn(2, 3, 32, 32)))\n```",
        f"```\n{posterity.explain(resnet, torch.randn(2, 3, 32, 32))}\n```",
        "Filter response normalisation is none of torch's layers, so its scales, shifts and thresholds are random like all\n"
        'else; `where="!*.norm.*"` leaves them out.',
        "## A BERT-like encoder",
        "```python\n"
        'bnn = bayesianize(BertForSequenceClassification(config), estimator="flipout")\n'
        'print(explain(bnn, {"input_ids": ids}))  # a mapping: keyword arguments\n```',
        f"```\n{posterity.explain(encoder, {'input_ids': torch.randint(1000, (2, 12))})}\n```",
    ]


if __name__ == "__main__":
    PAGE.write_text("\n\n".join([READING, *sections()]) + "\n", encoding="utf-8")
