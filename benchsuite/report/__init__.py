"""Reports: the boards of a results document as Markdown, CSV, JSON, HTML and in the terminal."""

from benchsuite.report.terminal import render_terminal as render_terminal
from benchsuite.report.write import write_board as write_board
