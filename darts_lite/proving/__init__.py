"""Proving: what the doctor computes on a device and compares with float64 on the CPU.

Here live the cases, their comparison and its words; nothing that a search or a retraining needs.
"""
