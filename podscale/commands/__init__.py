"""The commands, one module each: read the flags, call one function of the floors below, hand the answer to the door."""
