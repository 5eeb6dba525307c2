"""Kernels: the parts of operations that have a faster way than torch's own, each with its ways on a CPU and, in triton/, on CUDA.

Here lives how something is computed, with its gradients; what is computed, and with which weights, lives in candidates.py and layers.py.
"""
