"""Faults under load: clients that record what they were told, processes that are killed, and a checker of both."""
