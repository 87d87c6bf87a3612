"""Posteriors known by long runs of NUTS, to hold approximations against: `reference("moons")`."""

from posterity.references.reference import Reference as Reference
from posterity.references.reference import reference as reference
from posterity.references.tasks import TASKS as TASKS
from posterity.references.tasks import Task as Task
from posterity.references.tasks import task as task
