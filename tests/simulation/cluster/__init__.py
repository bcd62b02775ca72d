"""A whole cluster on virtual time: the roles' own code, a simulated network and stores, one seed.

``python -m tests.simulation.cluster --seconds 60`` runs schedules of faults until the time is up;
``--seed N`` replays one exactly.
"""
