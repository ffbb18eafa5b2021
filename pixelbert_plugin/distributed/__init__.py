"""Several processes: how they talk, and one model over all of them."""
