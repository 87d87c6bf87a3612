"""Studies of every method on equal terms, each one command and one table: tables, UCI regression, images, and CIFAR."""

from posterity.bench.cifar import CIFAR as CIFAR
from posterity.bench.images import IMAGES as IMAGES
from posterity.bench.study import Study as Study
from posterity.bench.tables import TABLES as TABLES
from posterity.bench.uci import UCI as UCI

STUDIES = {study.name: study for study in (TABLES, UCI, IMAGES, CIFAR)}
