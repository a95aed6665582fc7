"""Azure itself: who we are, what its errors mean, how its storage is reached."""
