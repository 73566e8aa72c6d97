"""Rules about data: each written once, reported by `check`, raised by training and forecasts."""
