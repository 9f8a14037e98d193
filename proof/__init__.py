"""The proof: whether selection makes better models, by how much, and when it does not. `make proof`."""
