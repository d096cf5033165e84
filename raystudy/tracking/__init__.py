"""What happened: append-only records, which are the truth, and their mirror in MLflow."""
