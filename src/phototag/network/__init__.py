"""The network: layers, pretrained backbones, model file, inference, several processes."""
