"""Vector search over one segment's rows: metrics, exact scans, indexes (``index`` is the contract)."""
