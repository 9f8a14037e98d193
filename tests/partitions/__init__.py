"""A cluster of several hosts with a network between them that breaks: network namespaces on one machine."""
