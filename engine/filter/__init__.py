"""The filter language: text -> typed tree -> one vectorised pass over columns.

``compile`` is the whole public face; ``Filter`` is what it gives.
"""

from engine.filter.compile import Filter, compile

__all__ = ["Filter", "compile"]
