"""The filter language: text -> typed tree -> one vectorised pass over columns.

``compile`` is the whole public face; ``Filter`` is what it gives.
"""
