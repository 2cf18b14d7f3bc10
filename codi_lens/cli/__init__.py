"""The command line: `codi-lens verify`, `analyze`, `study`, `ablate` and `patch`."""
