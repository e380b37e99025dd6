"""`s3router quickstart`: the whole chain on synthetic speech, in minutes."""
