"""Studies of every method on equal terms: UCI regression, MNIST-like images and CIFAR, each one command and one table."""

from posterity.bench.cifar import CIFAR as CIFAR
from posterity.bench.images import IMAGES as IMAGES
from posterity.bench.study import Study as Study
from posterity.bench.uci import UCI as UCI

STUDIES = {study.name: study for study in (UCI, IMAGES, CIFAR)}
