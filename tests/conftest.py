"""For all tests: a failing property prints how to replay it, and no property has a time limit per example."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "sheafdb", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("sheafdb")
