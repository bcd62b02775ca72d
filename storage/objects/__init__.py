"""The object store: immutable objects under names that are never reused. ``port`` is the contract."""
