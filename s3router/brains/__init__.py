"""SpeechBrain Brains that train a method on a task."""
