"""K-FAC: the curvature of a layer as a Kronecker product of what goes in and what its results are good for.

For y = W a + b with b as a further column of W (a further input 1), and rows g_k = ∂(s_k · f)/∂y,

    G ≈ B ⊗ A,      A = 1/M Σ_m a_m a_mᵀ,      B = Σ_m Σ_k g_mk g_mkᵀ

over the M places of all data where the weight is used (Martens and Grosse 2015; "expand" in Eschenhagen et al. 2023 for weights
that are used at many places of an example). Exact where a and g do not depend on each other: for a last layer with a Gaussian
likelihood of one noise level, and for one datum of one place. Blocks of different layers are independent.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posterity.core.curvature import DiagonalCurvature, FullCurvature
from posterity.core.recording import Recorded

Slices = tuple[tuple[int, int], ...]  # of the flat vector


class Factors:
    """A and B of one layer, summed batch by batch in float64. A lookup's A is diagonal: how often each row was taken."""

    def __init__(self, weight: Tensor, bias: bool, lookup: bool) -> None:
        rows, columns = len(weight), weight[0].numel() + bias
        self.bias, self.lookup, self.places = bias, lookup, 0.0
        self.left = weight.new_zeros((rows,) if lookup else (rows, rows), dtype=torch.float64)
        self.right = weight.new_zeros((columns, columns), dtype=torch.float64)

    def add_inputs(self, use: Recorded, weights: Tensor | None = None) -> None:
        """Add the inputs of the examples, each as often as it counts: weights (B,), 1 for all unless given."""
        a = use.inputs
        own = torch.ones(len(a), dtype=torch.float64, device=a.device)
        if weights is not None:
            own = weights.double() if len(weights) == len(a) else own * weights.double().mean()
        each = own[:, None].expand(a.shape[:2]).flatten()
        self.places += float(each.sum())
        if self.lookup:
            self.left += torch.bincount(a.flatten(), each, minlength=len(self.left))
            return
        a = a.flatten(0, 1)
        if self.bias:
            a = torch.cat([a, torch.ones_like(a[:, :1])], 1)
        self.right += a.T @ a if weights is None else (each.to(a)[:, None] * a).T @ a

    def add_outputs(self, g: Tensor) -> None:
        """Add the rows of one column, g (B, T, O)."""
        g = g.flatten(0, 1)
        self.add_output_total(g.T @ g)

    def add_output_total(self, total: Tensor) -> None:
        (self.right if self.lookup else self.left).add_(total)

    def block(self, slices: Slices) -> "KroneckerBlock":
        """Decompose both: the eigenvalues of the product are products of theirs."""
        right = self.right if self.lookup else self.right / self.places
        left = self.left / self.places if self.lookup else self.left
        right_values, right_basis = torch.linalg.eigh(right)
        left_values, left_basis = (left, None) if self.lookup else torch.linalg.eigh(left)
        return KroneckerBlock(slices, left_values.clamp_min(0), left_basis, right_values.clamp_min(0), right_basis)


@dataclass(frozen=True, eq=False)
class KroneckerBlock:
    """L ⊗ R by eigenvalues and eigenvectors, for a matrix of parameters (rows, columns); None is a basis of unit vectors.

    `slices`: where the weight lies, and where the bias, which is the last column, if there are two.
    """

    slices: Slices
    left_values: Tensor
    left_basis: Tensor | None
    right_values: Tensor
    right_basis: Tensor

    def scaled(self, factor: float) -> "KroneckerBlock":
        """Return factor · L ⊗ R."""
        return replace(self, left_values=factor * self.left_values)

    def log_det(self, precision: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        own, columns = self.whitened(precision)
        values = torch.outer(own.left_values, own.right_values)
        return torch.log1p(scale * values).sum() + len(own.left_values) * columns.log().sum()

    def whitened(self, precision: Tensor) -> tuple["KroneckerBlock", Tensor]:
        """Return L ⊗ R' and the diagonal of D, (columns,), with L ⊗ R + diag(precision) = W (L ⊗ R' + 1) W, W² = 1 ⊗ D.

        `precision` is constant in the weight and in the bias, whose precision may be another: R' = D^(−½) R D^(−½).
        """
        width = len(self.right_values)
        if len(self.slices) == 1 or bool(precision[0].detach() == precision[-1].detach()):
            values, basis, columns = self.right_values / precision[0], self.right_basis, precision[:1].expand(width)
        else:
            columns = torch.cat([precision[:1].expand(width - 1), precision[-1:]])
            root = columns.rsqrt()
            right = (self.right_basis * self.right_values) @ self.right_basis.T
            values, basis = torch.linalg.eigh(root[:, None] * right * root)
        return replace(self, right_values=values.clamp_min(0), right_basis=basis), columns


@dataclass(frozen=True, eq=False)
class Independent:
    """A block of another form: of parameters that no Kronecker product serves."""

    slices: Slices
    curvature: FullCurvature | DiagonalCurvature

    def scaled(self, factor: float) -> "Independent":
        """Return factor · G."""
        return Independent(self.slices, self.curvature.scaled(factor))

    def log_det(self, precision: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return self.curvature.log_det(precision, scale)


Block = KroneckerBlock | Independent


@dataclass(frozen=True, eq=False)
class KroneckerCurvature:
    """G, block by block."""

    blocks: tuple[Block, ...]

    def scaled(self, factor: float) -> "KroneckerCurvature":
        """Return factor · G."""
        return KroneckerCurvature(tuple(block.scaled(factor) for block in self.blocks))

    def log_det(self, precision: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Return log|scale · G + diag(precision)|, (), differentiable in both; precision is constant in each tensor."""
        return torch.stack([b.log_det(taken(precision, b.slices), scale) for b in self.blocks]).sum()


def taken(vector: Tensor, slices: Slices) -> Tensor:
    """Return the elements of a flat vector that a block is about, weights before biases."""
    return torch.cat([vector[a:b] for a, b in slices])


class Squares:
    """The exact diagonal of one layer's curvature, summed batch by batch in float64."""

    def __init__(self, weight: Tensor, bias: bool, max_bytes: int) -> None:
        self.weight = weight.new_zeros(weight.shape, dtype=torch.float64).flatten(1)
        self.bias = weight.new_zeros(len(weight), dtype=torch.float64) if bias else None
        self.max_bytes = max_bytes

    def add(self, a: Tensor, g: Tensor) -> None:
        """Add Σ_n (Σ_t g_nt a_ntᵀ)² of one column, a (B, T, I) or integers (B, T), g (B, T, O)."""
        if self.bias is not None:
            self.bias += g.sum(1).square().sum(0)
        if not a.is_floating_point():
            self._add_lookup(a, g)
        elif a.shape[1] == 1:
            self.weight += g[:, 0].square().T @ a[:, 0].square()
        else:
            step = max(1, self.max_bytes // (self.weight.numel() * a.element_size()))
            for inputs, grads in zip(a.split(step), g.split(step), strict=True):
                self.weight += (grads.transpose(1, 2) @ inputs).square().sum(0)

    def add_output(self, a: Tensor, diagonal: Tensor) -> None:
        """Add all columns at once for a layer whose result (B, O) is the network's output, where Λ has this diagonal."""
        self.weight += diagonal.T @ a[:, 0].square()
        if self.bias is not None:
            self.bias += diagonal.sum(0)

    def _add_lookup(self, a: Tensor, g: Tensor) -> None:
        """A row that one example takes several times gets the square of a sum."""
        rows = len(self.weight)
        which = torch.arange(len(a), device=a.device)[:, None] * rows + a
        pairs, index = which.flatten().unique(return_inverse=True)
        sums = g.new_zeros(len(pairs), g.shape[-1]).index_add_(0, index, g.flatten(0, 1))
        self.weight.index_add_(0, pairs % rows, sums.square().double())
