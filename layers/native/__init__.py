"""Kernels of our own for the CPU, where torch has none or a slower one.

Each C file in ``kernels`` is compiled for the processor at hand when it is first needed
(:mod:`.library`); the Python file of the same name calls it. Where there is no compiler, for other
devices and types of numbers, and under torch.compile, the same is computed by torch's operations.
"""
