"""What happens where one machine is not enough: `make scale`; see deploy/scale.md."""
