"""Genotypes: the result of a search as data, its JSON and text forms, and the published ones.

Here lives what a genotype is and how a text, a file or a name becomes one. No torch and no networks.
"""
