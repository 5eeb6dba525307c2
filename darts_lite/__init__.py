"""darts_lite: differentiable architecture search. Nothing is imported here, so that `--help` stays fast; see README.md."""
