"""Categorical verification: events above a threshold, SEEPS, and terciles."""
