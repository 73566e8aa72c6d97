"""Gridded Earth data: opening, naming, orienting, reading, normalizing. Labels only, never torch."""
