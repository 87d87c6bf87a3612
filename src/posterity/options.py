"""What all options have in common: frozen dataclasses that pydantic checks, and that refuse a misspelt name."""

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid")  # a misspelt key of a configuration is refused, however deep it lies
