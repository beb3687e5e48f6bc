"""What `cortado bench` is made of: nets, the same nets in plain torch, workers, probes."""
