"""One folder a step, each a thin Kubeflow component: arguments in, one call of the library, outputs out."""
