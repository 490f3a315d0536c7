"""The check of everything that only a GPU can show, in one command: `make gpu`, which runs `bench/gpu.sh`.

Needs torch, numpy, scipy, safetensors, this folder and `models`, nothing else; the section `node` needs the whole tree.
On a CPU it is a dry run of the same code at small sizes. `__main__.py` holds the order of the sections; each is a
module with one function of its name.
"""
