"""Photos to labels: the tagger, and the registered model that brings it along."""
