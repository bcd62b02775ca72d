"""The metadata store: small values, compare-and-swap, watches. ``port`` is the contract."""
