"""How good predictions are, and whether they know it."""
