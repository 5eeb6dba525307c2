"""Hardware: devices, cores, number formats, CUDA graphs.

Here lives what depends on the machine and not on the algorithm. Nothing here knows of networks or settings.
"""
