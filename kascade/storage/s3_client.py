"""The connection to a bucket, for scripts: the stable name of what `kascade.storage.s3.client` holds.

Scripts that were written before the S3 store became a package import it from here.
"""

from kascade.storage.s3.client import S3Settings, connect

__all__ = ["S3Settings", "connect"]
