"""A report on the climate of a long run: its mean, drift, annual cycle and variability beside those of the truth."""
