"""Found by every Python process whose PYTHONPATH has this folder: see ledger.py, which is read only by those that
encrypt, because starting is measured too."""

import os
import sys

MODULE = "cryptography.hazmat.primitives.ciphers.aead"


class _Waiting:
    """Asked for every module, until the one that matters is imported."""

    @classmethod
    def find_spec(cls, name: str, path: object, target: object = None) -> object:
        if name != MODULE:
            return None
        sys.meta_path.remove(cls)  # type: ignore[arg-type]
        import importlib.util

        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        importlib.import_module("ledger").install()
        del sys.path[0]
        return importlib.util.find_spec(name)


if os.environ.get("NONCE_LEDGER"):
    sys.meta_path.insert(0, _Waiting)  # type: ignore[arg-type]
