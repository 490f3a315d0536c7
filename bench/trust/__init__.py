"""Yardsticks that cannot flatter: real scans, evenness along vessels, levels, and attacks on the gates."""
