"""``python -m benchsuite``: the command line, wherever the console script is not on the path."""

from benchsuite.cli import main

main()
