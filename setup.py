"""The compiled kernels. Everything else is in pyproject.toml.

The extension is optional: without a C compiler the installation succeeds and the NumPy reference does the work.
"""

from __future__ import annotations

import sys
from glob import glob

from setuptools import Extension, setup

UNIX_FLAGS = ["-O3", "-g0", "-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]

native = Extension(
    "kernels._native",
    sources=sorted(glob("kernels/*.c")),
    depends=sorted(glob("kernels/*.h")),
    extra_compile_args=["/O2"] if sys.platform == "win32" else UNIX_FLAGS,
    libraries=["dl"] if sys.platform == "linux" else [],  # where libc does not have dlopen itself
    optional=True,
)

setup(ext_modules=[native] if native.sources else [])
