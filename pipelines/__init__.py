"""The cascade as a Kubeflow pipeline: built from a recipe, compiled, and run on this machine."""
