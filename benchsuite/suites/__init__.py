"""Suites that ship with the engine: named matrices of models, data sets and metrics, as TOML."""
