"""Says how far the run of a store is, from any machine that reads the store."""
