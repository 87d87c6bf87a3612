"""Networks to begin with and to compare with, and networks by name for the command line and for saved posteriors."""

from posterity.zoo.activations import ACTIVATIONS as ACTIVATIONS
from posterity.zoo.alexnet import AlexNet as AlexNet
from posterity.zoo.alexnet import AlexNetHalf as AlexNetHalf
from posterity.zoo.build import IMAGE_NETWORKS as IMAGE_NETWORKS
from posterity.zoo.build import NetworkSpec as NetworkSpec
from posterity.zoo.build import build as build
from posterity.zoo.build import image_side as image_side
from posterity.zoo.build import rebuild as rebuild
from posterity.zoo.cnn import SmallCNN as SmallCNN
from posterity.zoo.cnn import ThreeConvThreeFC as ThreeConvThreeFC
from posterity.zoo.lenet import LeNet as LeNet
from posterity.zoo.mlp import MLP as MLP
from posterity.zoo.resnet import ResNet20 as ResNet20
