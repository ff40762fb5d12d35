"""Searches: settings that learn from trials which to try next."""
