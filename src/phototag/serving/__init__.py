"""Photos to labels: the tagger, and the MLflow model that ships with it."""
