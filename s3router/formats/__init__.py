"""Files on disk: masks, subnetwork folders, bundles; numpy, never torch."""
