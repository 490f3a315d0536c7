"""What planning on another CT would change: the same simple dose on two CTs. A comparison of CTs, no clinical dose."""
