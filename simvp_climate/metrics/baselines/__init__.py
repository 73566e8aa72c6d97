"""Baselines: what a forecast has to beat."""
