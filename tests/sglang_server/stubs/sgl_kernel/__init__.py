"""Stands in for SGLang's GPU kernels on a machine without a GPU: they can be imported, and none is ever called."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def kernel(*args, **kwargs):
        raise NotImplementedError(f"sgl_kernel.{name} needs a GPU")

    return kernel
