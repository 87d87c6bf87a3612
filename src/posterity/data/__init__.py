"""Data sets by name, found where the usual tools put them, checked, and turned into plain tensors."""

from posterity.data.dataset import Dataset as Dataset
from posterity.data.dataset import Options as Options
from posterity.data.dataset import Reader as Reader
from posterity.data.dataset import Scaling as Scaling
from posterity.data.loading import Description as Description
from posterity.data.loading import describe as describe
from posterity.data.loading import load as load
from posterity.data.loading import names as names
