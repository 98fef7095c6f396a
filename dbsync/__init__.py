"""dbsync moves a live system from one database to another, and back."""
