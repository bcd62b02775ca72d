"""Search on one machine: filters, vectors, and their plan over one segment. No network, no files but indexes."""
