"""The native decoder: GLM's forward pass in C++ for CPUs, with weights of 32, 16, 8 or 4 bits.

`library` finds the shared library that the package's build made (sources in `native/`), `runner` runs sequences on weights that
`checkpoint.packing` brought into its layout and `checkpoint.quantized` onto disk; nothing of torch is imported for it. Without a
library everything works through torch; `library.why_not` says why.
"""
