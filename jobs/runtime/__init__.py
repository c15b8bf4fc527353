"""list -> map -> commit, written once for Spark, Ray and in-process."""
