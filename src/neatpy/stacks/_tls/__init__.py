"""The parts of the TLS layer: engines over memory BIOs, their settings, and the Flow that drives them."""
