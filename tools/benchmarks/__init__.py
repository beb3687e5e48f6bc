"""What ``cortado bench`` is made of: nets, the same nets written in plain torch, workers, probes."""
