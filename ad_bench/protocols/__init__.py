"""Which samples train and which are tested, one function a protocol."""
