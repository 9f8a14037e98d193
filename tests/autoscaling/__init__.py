"""Runs on a cluster that Ray's own autoscaler grows from nothing, and whose nodes are killed as spot nodes are."""
