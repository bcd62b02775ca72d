"""Metrics as Milvus defines them, and the order of their scores."""

from enum import StrEnum

from core.types import DataType


class Metric(StrEnum):
    """Scores as clients see them: L2 is the squared distance; COSINE the cosine in [-1, 1];
    HAMMING the number of differing bits; JACCARD 1 - |a and b| / |a or b|."""

    L2 = "L2"
    IP = "IP"
    COSINE = "COSINE"
    HAMMING = "HAMMING"
    JACCARD = "JACCARD"

    @property
    def larger_is_better(self) -> bool:
        return self in (Metric.IP, Metric.COSINE)


METRICS: dict[DataType, tuple[Metric, ...]] = {
    DataType.FLOAT_VECTOR: (Metric.COSINE, Metric.L2, Metric.IP),
    DataType.BINARY_VECTOR: (Metric.HAMMING, Metric.JACCARD),
}
"""Metrics each vector type allows; the first is the default."""
