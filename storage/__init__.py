"""Everything durable: the log, the metadata store, the object store, and the formats kept in them.

The one exception to "storage imports only core": the generated messages of ``rpc.pb`` are the
stored format of records, catalog and manifests (docs/decisions/0002).
"""
