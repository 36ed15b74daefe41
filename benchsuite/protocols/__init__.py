"""Protocols: experiments run once per (model, items) and shared by all metrics that asked for them.

Each module documents the arrays of its record.
"""
