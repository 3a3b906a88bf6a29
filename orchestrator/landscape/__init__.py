"""The landscape: a tidy table of trials and the statistics on it. Pandas and scipy; no Ray, no MLflow."""
