"""The network: its layers, its file, its logits and where it looks."""
