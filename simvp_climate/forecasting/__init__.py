"""Forecasts: a trained network and a Dataset in, a labeled Dataset out."""
