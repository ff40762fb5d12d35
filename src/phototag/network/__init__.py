"""The network: layers, pretrained backbones, model file, inference and distributed training."""
