"""The code zip, spark-submit and the Jobs API of Ray."""
