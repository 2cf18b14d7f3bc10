"""What is causal: paired runs with and without an intervention, one question per module."""
