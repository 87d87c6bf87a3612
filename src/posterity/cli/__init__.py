"""The command line, `posterity`. Nothing here imports torch before a command needs it."""

from posterity.cli.app import main as main
