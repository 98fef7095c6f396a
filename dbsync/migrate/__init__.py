"""What shape? Revisions planned, judged and run, one transaction each."""
