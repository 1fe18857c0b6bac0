"""Augmented views of a query: image and segmentation under one geometry, with the object in sight."""

from __future__ import annotations

import torch

from nnunet_semcl.data.views import Views

DRAWS = 5


class QueryViews(Views):
    """Views of a query: image and segmentation, with the object in sight."""

    def __call__(
        self, image: torch.Tensor, segmentation: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """One view of an object, given by the labels that make it up.

        Shape: image (C, *cut_size) float32 and segmentation (1 or more, *cut_size) int16, the labels first -> the
        same with query_size; None where the object left the view in each of a few draws, so that the caller draws
        another query. What a view sees beyond the cut is 0 in the image and UNKNOWN in the segmentation.
        """
        for _ in range(DRAWS):
            view = self._geometry(image=image, segmentation=segmentation)
            if torch.isin(view["segmentation"][0], labels).any():
                return self._intensities(image=view["image"])["image"], view["segmentation"]
        return None
