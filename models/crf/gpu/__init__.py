"""The GPU backend: Triton kernels, one program a sentence. Importing this package imports triton."""
