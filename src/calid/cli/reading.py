"""Options of every verb that reads a stack: what to do where its header leaves a choice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calid.io import Headers
    from calid.stack import SliceStack

__all__ = ["Reading"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the input is read where its header leaves a choice."""

    spacing_from: Literal["auto", "pixdim", "affine"] = "auto"
    """Where the voxel size comes from if the header contradicts itself: auto takes pixdim
    and says so."""
    thickness: float | None = None
    """Slice thickness in mm, for the record. Without, the header's, or slices touch."""
    fill: float | None = None
    """Stored value for voxels that are NaN or infinite. Without, they are an error."""
    odd_slices: Literal["refuse", "leave-out"] = "refuse"
    """DICOM slices that do not fit the others: an error, or left out with a warning."""
    max_bytes: int | None = None
    """Voxels that need more memory than this are not read. Without, 4 GiB."""

    def read(self, path: Path) -> SliceStack:
        """Read a stack; see `calid.io.read`."""
        return self.read_with_headers(path)[0]

    def read_with_headers(self, path: Path) -> tuple[SliceStack, Headers | None]:
        """Read a stack, and of DICOM its headers; see `calid.io.read_with_headers`."""
        from calid.io import read_with_headers

        return read_with_headers(
            path,
            thickness=self.thickness,
            fill=self.fill,
            odd_slices=self.odd_slices,
            **self._common(),
        )

    def read_labels(self, path: Path, like: SliceStack) -> NDArray[np.uint8]:
        """Read the labels of a stack that was read with the same options."""
        from calid.io.labels import read_labels

        return read_labels(path, like, **self._common())

    def facts(self) -> dict[str, Any]:
        """The options that shape the result, for the record."""
        return {
            "spacing_from": self.spacing_from,
            "fill": self.fill,
            "odd_slices": self.odd_slices,
        }

    def _common(self) -> dict[str, Any]:
        options: dict[str, Any] = {"spacing_from": self.spacing_from}
        return options if self.max_bytes is None else options | {"max_bytes": self.max_bytes}
