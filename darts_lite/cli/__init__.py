"""Command line: the only room that sees Hydra.

Here live words, usage, sweeps, the console and exit codes. The verbs import it inside `main()` only.
"""
