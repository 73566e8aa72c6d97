"""Uncertainty of scores and of forecasts: bootstrap, prediction intervals, calibration."""
