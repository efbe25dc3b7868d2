"""Reward models that SGLang does not have, for `SGLANG_EXTERNAL_MODEL_PACKAGE=prm.sglang_models`.

SGLang imports every module here that it finds, in the server's own environment; each names its classes in `EntryClass`.
"""
