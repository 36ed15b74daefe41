"""Renderers of a results document: Markdown, CSV, JSON, HTML and the terminal. See `benchsuite.leaderboard`."""
