"""The networks, as functions of a configuration; and the non-neural baselines beside them."""
