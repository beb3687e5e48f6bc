"""Layers of one's own; docs/own_layer.md explains them."""
