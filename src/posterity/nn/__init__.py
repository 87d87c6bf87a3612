"""Layers of `torch.nn` with every parameter random, for networks composed by hand: `import posterity.nn as pnn`.

Each takes what torch's layer of that name takes, and by keyword `prior`, `std` and `estimator`; see `Layer`. They mix with
any other modules, `posterity.kl(network)` sums their divergences, and `posterity.posterior(network)` predicts. For a network
that exists already, `posterity.bayesianize` makes all or part of it Bayesian without these layers.

>>> import torch, posterity
>>> import posterity.nn as pnn
>>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), pnn.Linear(8, 2, prior=posterity.Normal(0, 1)))
>>> network(torch.ones(3, 4)).shape
torch.Size([3, 2])
>>> network[2]
Linear(in_features=8, out_features=2, bias=True, random=18, prior=Normal(mean=0.0, std=1.0, fan_in=False), estimator='weight')
"""

from posterity.nn.layer import Layer as Layer
from posterity.nn.layers import GRU as GRU
from posterity.nn.layers import LSTM as LSTM
from posterity.nn.layers import Conv1d as Conv1d
from posterity.nn.layers import Conv2d as Conv2d
from posterity.nn.layers import Conv3d as Conv3d
from posterity.nn.layers import ConvTranspose1d as ConvTranspose1d
from posterity.nn.layers import ConvTranspose2d as ConvTranspose2d
from posterity.nn.layers import ConvTranspose3d as ConvTranspose3d
from posterity.nn.layers import Embedding as Embedding
from posterity.nn.layers import Linear as Linear
from posterity.nn.layers import MultiheadAttention as MultiheadAttention
