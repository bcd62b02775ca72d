"""``sheafdb admin``: what is in a store, who holds it, and whether it is whole. Changes nothing but drains.

``picture`` is what the metadata store says; ``tables`` and ``findings`` are pure functions of it;
``survey`` and ``statuses`` ask the other stores and the nodes; ``arguments`` is the command line.
"""
