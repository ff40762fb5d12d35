"""What people do with a model on their own machine: predict, export, demo."""
