"""Benchmarking: arms that are timed in turns, and the per-edge supernet that is their baseline and the oracle of the tests.

Here lives what measures; nothing that a search or a retraining needs.
"""
