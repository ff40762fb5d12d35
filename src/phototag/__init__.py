"""Multi-label photo classification."""
