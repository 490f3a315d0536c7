"""From HU to HU: what every translator does around its network, and one file per way of predicting."""
