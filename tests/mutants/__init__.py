"""For each numbered rule of the protocol, the smallest change that takes it out."""
