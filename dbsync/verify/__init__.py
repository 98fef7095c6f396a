"""THE SAME? newer = forward(older), compared while both sides are in use; the receipt is the evidence."""
