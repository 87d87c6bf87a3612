"""Files made to hurt, and what happens to who reads them: `python benchmarks/fuzz.py`."""
