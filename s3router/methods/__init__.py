"""How a subnetwork is found: one file a method, all behind `base.Method`."""
