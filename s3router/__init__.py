"""s3router: find, train, store and run subnetworks of speech encoders."""

__version__ = "0.1.0"
