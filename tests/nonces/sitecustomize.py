"""Found by every Python process whose PYTHONPATH has this folder: see ledger.py."""

import importlib
import os

if os.environ.get("NONCE_LEDGER"):
    importlib.import_module("ledger").install()
