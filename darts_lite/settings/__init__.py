"""Settings: what can be set, with defaults, ranges and relations, and what makes two configurations the same run.

Here live dataclasses and the checks of plain values. No torch, no Hydra, and nothing that reads data.
"""
