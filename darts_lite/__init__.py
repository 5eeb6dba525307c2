"""darts_lite: differentiable architecture search. Nothing is imported here, so that `--help` stays fast; see README.md."""

__version__ = "0.1.0"  # that of pyproject.toml
