"""What can be submitted: one file a job. The only place where pipelines and training meet Spark and Ray."""
