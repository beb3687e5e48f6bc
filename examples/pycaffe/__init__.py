"""Scripts for Caffe's Python interface; each runs with ``python -m cortado.tools.pycaffe``."""
