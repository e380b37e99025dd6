"""Turns subnetworks into ONNX graphs and bundles, and checks them."""
