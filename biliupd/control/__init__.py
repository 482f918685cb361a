"""The HTTP interface. Knows the catalog; what else it needs the daemon gives it as callables."""
