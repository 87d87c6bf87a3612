"""Small networks to begin with, and networks by name for the command line and for saved posteriors."""

from posterity.zoo.activations import ACTIVATIONS as ACTIVATIONS
from posterity.zoo.build import NetworkSpec as NetworkSpec
from posterity.zoo.build import build as build
from posterity.zoo.build import rebuild as rebuild
from posterity.zoo.lenet import LeNet as LeNet
from posterity.zoo.mlp import MLP as MLP
