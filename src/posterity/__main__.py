"""`python -m posterity`: the command line."""

from posterity.cli import main

main()
