"""Augmented views of a query: image and segmentation under the same spatial transform, with the object in view."""

from __future__ import annotations

import torch

from nnunet_semcl.data.views import Views

DRAWS = 5


class QueryViews(Views):
    """Views of a query, image and segmentation, that show its object."""

    def __call__(
        self, image: torch.Tensor, segmentation: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Draws one view of an object.

        Args:
            image: (C, *cut_size) float32.
            segmentation: (1 or more, *cut_size) int16, the labels first.
            labels: the labels that make up the object.

        Returns:
            Image and segmentation with edges `size`; None if the object was outside the view in each of a few draws, so
            that the caller draws another query. Voxels outside the patch are 0 in the image and UNKNOWN in the
            segmentation.
        """
        for _ in range(DRAWS):
            view = self._geometry(image=image, segmentation=segmentation)
            if torch.isin(view["segmentation"][0], labels).any():
                return self._intensities(image=view["image"])["image"], view["segmentation"]
        return None
