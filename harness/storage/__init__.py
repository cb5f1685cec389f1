"""Files on this machine: written in one step, read within bounds, named safely, locked; canonical JSON."""
