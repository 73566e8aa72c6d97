"""Baselines and metrics: labels only, never torch."""
