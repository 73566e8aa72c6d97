"""Networks: torch only, without labels and training."""
