"""Where base and experts come from: given, or trained here (`embedded`)."""
