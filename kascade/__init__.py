"""Kascade: a post-training cascade for language models, guarded against forgetting.

The library has never heard of Kubeflow: `pipelines` and `components` put it on a DAG.
"""

__version__ = "0.1.0"
