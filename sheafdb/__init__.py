"""The only place that picks backends and wires the roles: command line, settings, one-process server."""

__version__ = "0.1.0"
