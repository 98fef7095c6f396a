"""WHO IS LIVE? Two guard rows and evidence in; one road, walked both ways, out."""
