"""Types are checked at run time in tests, and nowhere else."""

from beartype.claw import beartype_package

beartype_package("posterity")
