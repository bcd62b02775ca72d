"""The query node: answers reads of the shards placed on it, each from one view.

A shard here is the sealed segments of its manifest plus the log from the checkpoint on. All of it
is a cache: a node that starts again rebuilds it from the metadata store, the objects and the log.
"""
