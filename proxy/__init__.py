"""The proxy: speaks the Milvus protocol, validates, hashes writes to shards, fans reads out and merges them."""
