"""Networks: tensors in, tensors out; nothing here knows of HU, bundles or files."""
