"""The networks: torch only; they know neither labels nor training."""
