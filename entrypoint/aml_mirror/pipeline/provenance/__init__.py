"""What a version was made of, in a shape that others read, and the proof that it still is."""
