"""The served installer: scripts, signed manifest, wheels."""
