"""Locality-sensitive bands: which pairs become candidates (Leskovec, Rajaraman, Ullman, section 3.4).

A signature of b x r minima is cut into b bands; two documents meet in a band with probability J^r, so a pair
becomes a candidate with probability 1 - (1 - J^r)^b. Every candidate is verified against the texts, so a
false one costs microseconds and a missed one is lost for good: the default leans to recall (85 % at J = 0.7,
99.7 % at 0.8).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.errors import ConfigError

MAX_PERMUTATIONS = 1024


def candidate_probability(similarity: float, num_bands: int, rows_per_band: int) -> float:
    """Probability that a pair of this Jaccard similarity shares at least one band."""
    return 1.0 - (1.0 - similarity**rows_per_band) ** num_bands


def s_curve(num_bands: int, rows_per_band: int) -> dict[float, float]:
    """Similarity -> share of the pairs at it that become candidates, from 0.3 to 0.95."""
    steps = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    return {similarity: candidate_probability(similarity, num_bands, rows_per_band) for similarity in steps}


def error_integrals(min_similarity: float, num_bands: int, rows_per_band: int) -> tuple[float, float]:
    """(false positives, false negatives): the areas of the S-curve below, and above it from, the threshold on.

    What datasketch's optimiser weighs (Zhu, Nargesian, Pu, Miller, "LSH Ensemble", 2016). With verification a false
    candidate costs microseconds, so the default plan is not the one where the sum is least.
    """
    steps = 1000

    def area(first: float, last: float, missed: bool) -> float:
        width = (last - first) / steps
        middles = (first + (i + 0.5) * width for i in range(steps))
        shares = (candidate_probability(middle, num_bands, rows_per_band) for middle in middles)
        return sum(1.0 - share if missed else share for share in shares) * width

    return area(0.0, min_similarity, missed=False), area(min_similarity, 1.0, missed=True)


def least_error(min_similarity: float, permutations: int) -> tuple[int, int]:
    """(bands, rows) within so many permutations whose two error integrals have the least mean."""
    plans = [(b, r) for b in range(1, permutations + 1) for r in range(1, permutations // b + 1)]
    return min(plans, key=lambda plan: sum(error_integrals(min_similarity, *plan)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BandPlan:
    """How a signature is cut, and from which similarity on a candidate is a duplicate."""

    num_bands: int = 32
    rows_per_band: int = 8
    min_similarity: float = 0.7

    def __post_init__(self) -> None:
        """Refuse a plan that misses most of what it should find, or that makes everything a candidate."""
        if self.num_bands < 1 or self.rows_per_band < 1:
            raise ConfigError(
                f"lsh: num_bands is {self.num_bands} and rows_per_band is {self.rows_per_band}; both must be 1 or more",
                mend="the default is num_bands=32, rows_per_band=8",
            )
        if self.num_permutations > MAX_PERMUTATIONS:
            raise ConfigError(
                f"lsh: {self.num_bands} bands of {self.rows_per_band} rows need {self.num_permutations} "
                f"permutations; at most {MAX_PERMUTATIONS} are computed",
                mend="lower num_bands or rows_per_band",
            )
        if not 0.0 < self.min_similarity <= 1.0:
            raise ConfigError(
                f"lsh: min_similarity is {self.min_similarity}; expected a Jaccard similarity in (0, 1]",
                mend="0.7 finds edited copies, 0.9 only near-identical pages",
            )
        found = candidate_probability(self.min_similarity, self.num_bands, self.rows_per_band)
        if found < 0.5:
            raise ConfigError(
                f"lsh: {self.num_bands} bands of {self.rows_per_band} rows find only {found:.0%} of the "
                f"pairs at min_similarity {self.min_similarity}; expected at least half",
                mend="raise num_bands, lower rows_per_band, or raise min_similarity",
            )
        strangers = candidate_probability(min(0.3, self.min_similarity / 2), self.num_bands, self.rows_per_band)
        if strangers > 0.5:
            raise ConfigError(
                f"lsh: {self.num_bands} bands of {self.rows_per_band} rows make {strangers:.0%} "
                "of unlike pairs candidates (Jaccard 0.3 or less); each is verified",
                mend="raise rows_per_band",
            )

    @property
    def num_permutations(self) -> int:
        """Minima in a signature."""
        return self.num_bands * self.rows_per_band
