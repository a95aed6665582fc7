"""What a layout of a simple framework is declared with.

:class:`~aml_mirror.layouts.kit.file_layout.FileLayout` is for frameworks that save a checkpoint as one
file, :class:`~aml_mirror.layouts.kit.folder_layout.FolderLayout` for those that save it as a folder. Both
follow the same rules, so that a declaration only says how names look and which role they have. A framework
with rules of its own implements :class:`aml_mirror.layouts.base.Layout` and uses the parts here that fit.
"""
