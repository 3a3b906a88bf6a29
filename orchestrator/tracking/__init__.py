"""The only package that knows MLflow: a sweep and its trials are written to a tracker, and read from it."""
