"""The distribution under its own name. The library is the package ``ames``; only the way in is here."""
