"""Runs exported subnetworks on a device: numpy, onnxruntime, soundfile."""
