"""Forecasts: a trained network and a Dataset in, a labelled Dataset out."""
