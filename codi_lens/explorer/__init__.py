"""The explorer: one interactive page of attention between thoughts."""
