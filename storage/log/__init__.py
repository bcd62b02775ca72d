"""The log: the database itself. ``port`` is the contract, the other modules are backends."""
