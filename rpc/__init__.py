"""What roles say to each other: Protocols, requests and replies. ``pb`` is generated from proto/."""
