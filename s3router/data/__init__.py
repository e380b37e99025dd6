"""From recordings and sentences to what a model trains on.

Manifests, audio, text, tokens, data sets; synthetic speech.
"""
