"""The whole path on one machine: a phantom is scanned, pushed, translated, delivered, checked and pictured."""
