"""The versions of the model: which one is the champion, and why."""
