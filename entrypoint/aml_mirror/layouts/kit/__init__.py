"""The building blocks for declaring the layout of a simple framework.

:class:`~aml_mirror.layouts.kit.file_layout.FileLayout` is for frameworks that save a checkpoint as one file,
:class:`~aml_mirror.layouts.kit.folder_layout.FolderLayout` for those that save it as a folder. Both follow
the same rules, so a declaration only describes names and their roles. A framework with rules of its own
implements :class:`aml_mirror.layouts.base.Layout` and uses the parts here that fit.
"""
