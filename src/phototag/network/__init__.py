"""The network: its layers, its file, its logits, alone or in several processes."""
